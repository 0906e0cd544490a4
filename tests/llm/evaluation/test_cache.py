"""The store of answers under damage, kills and rivals."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from esa_notebooks.llm.evaluation.cache import Cache, CacheError, claim, key_of, release

AT = "2026-11-25T12:00:00Z"
ROOT = Path(__file__).resolve().parents[3]


def filled(path: Path, n: int = 300) -> list[str]:
    keys = [key_of({"v": 1}, i) for i in range(n)]
    with Cache(path) as cache:
        for i, key in enumerate(keys):
            cache.put(key, {"text": f"answer {i}", "total_s": i / 7}, AT)
    return keys


def test_what_is_put_is_got_by_another_process_to_the_last_bit(tmp_path):
    strange = {"text": "\ud800 {} %s \x00 é 航", "total_s": 0.1 + 0.2, "finish": None}
    with Cache(tmp_path / "new" / "c.sqlite") as one, Cache(tmp_path / "new" / "c.sqlite") as other:
        one.put("k", strange, AT)
        assert other.get(["k", "absent"]) == {"k": strange} and len(other) == 1


def test_the_key_depends_on_identity_and_question_alone():
    asked = [{"role": "user", "content": "a \ud800"}]
    assert key_of({"a": 1, "b": 2}, asked) == key_of({"b": 2, "a": 1}, asked)
    assert (
        len({key_of({"a": 1}, asked), key_of({"a": 2}, asked), key_of({"a": 1}, asked * 2), key_of({"a": 1}, [])}) == 4
    )
    with pytest.raises(ValueError):
        key_of({"temperature": float("nan")}, asked)


def test_a_file_that_is_cut_off_is_set_aside_and_what_can_be_read_is_kept(tmp_path):
    path, said = tmp_path / "c.sqlite", []
    keys = filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with Cache(path, said.append) as cache:
        kept = cache.get(keys)
        assert 0 < len(kept) < 300 and all(reply["text"] == f"answer {keys.index(k)}" for k, reply in kept.items())
    assert len(said) == 1 and f"{len(kept)} answers could be read" in said[0] and "c.sqlite.damaged-1" in said[0]
    assert (tmp_path / "c.sqlite.damaged-1").stat().st_size == len(whole) * 2 // 3
    with Cache(path, said.append) as cache:  # whole again, and nothing more to say
        assert len(cache) == len(kept) and len(said) == 1


def test_a_file_that_is_no_database_is_set_aside_each_time_under_a_new_name(tmp_path):
    path, said = tmp_path / "c.sqlite", []
    for _ in range(2):
        path.write_bytes(b"no database at all, " * 99)
        with Cache(path, said.append) as cache:
            assert len(cache) == 0
    assert (
        sorted(p.name for p in tmp_path.glob("*.damaged-*")) == ["c.sqlite.damaged-1", "c.sqlite.damaged-2"]
        and len(said) == 2
    )


def test_a_changed_byte_in_an_answer_is_noticed(tmp_path):
    path, said = tmp_path / "c.sqlite", []
    keys = filled(path)
    data = path.read_bytes()
    assert data.count(b'"answer 123"') == 1
    path.write_bytes(data.replace(b'"answer 123"', b'"answer 124"'))
    with Cache(path, said.append) as cache:
        found = cache.get(keys)
        assert keys[123] not in found and len(found) == 299 and "1 answers" in said[0]
        cache.put(keys[123], {"text": "answer 123"}, AT)
        assert len(cache.get(keys)) == 300


def test_another_database_and_another_version_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (id)")
    before = path.read_bytes()
    with pytest.raises(CacheError, match="mlflow.db is a database, and not a cache"):
        Cache(path)
    assert path.read_bytes() == before
    filled(tmp_path / "c.sqlite", 1)
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(CacheError, match="of this version"):
        Cache(tmp_path / "c.sqlite")


def test_a_folder_in_its_place_is_refused_in_words(tmp_path):
    (tmp_path / "c.sqlite").mkdir()
    with pytest.raises(CacheError, match="cannot be opened"):
        Cache(tmp_path / "c.sqlite")


WRITER = """
import sys
from esa_notebooks.llm.evaluation.cache import Cache, claim
cache = Cache(sys.argv[1])
for i in range(10**6):
    claim(cache, f"k{i}")
    print(i, flush=True)
    cache.put(f"k{i}", {"text": str(i)}, "2026-11-25T12:00:00Z")
    print(-1 - i, flush=True)
"""


def test_a_killed_writer_leaves_every_answer_it_had_kept_and_no_claim_that_counts(tmp_path):
    path = tmp_path / "c.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    lines = [int(next(writer.stdout)) for _ in range(400)]
    os.kill(writer.pid, signal.SIGKILL)
    lines += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    kept = {-1 - i for i in lines if i < 0}
    with Cache(path, pytest.fail) as cache:
        found = cache.get(f"k{i}" for i in range(max(kept) + 2))
        assert {int(name[1:]) for name in found} >= kept and len(found) <= len(kept) + 1
        assert claim(cache, f"k{max(kept) + 2}") and claim(cache, "new")


def test_a_claim_is_held_by_one_and_taken_over_from_the_dead(tmp_path):
    with Cache(tmp_path / "c.sqlite") as one, Cache(tmp_path / "c.sqlite") as other:
        assert claim(one, "k") and not claim(other, "k")
        release(other, "k")  # not his to give back
        assert not claim(other, "k")
        release(one, "k")
        assert claim(other, "k") and not claim(one, "k")
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        other._db.execute("UPDATE claims SET pid = ?", (int(ended.stdout),))
        assert claim(one, "k")
        one._db.execute("UPDATE claims SET boot = 'elsewhere 1'")  # of another machine nothing is known
        assert not claim(other, "k")
        one._db.execute("UPDATE claims SET boot = ? || '0'", (one.boot,))  # of this machine, before it was started anew
        assert claim(other, "k")


def test_of_many_threads_in_two_caches_one_gets_the_claim(tmp_path):
    with Cache(tmp_path / "c.sqlite") as one, Cache(tmp_path / "c.sqlite") as other:
        won, start = [], threading.Barrier(8)

        def try_all(cache):
            start.wait()
            won.extend(key for key in map(str, range(50)) if claim(cache, key))

        threads = [threading.Thread(target=try_all, args=(cache,)) for cache in [one, other] * 4]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert sorted(won) == sorted(map(str, range(50)))


def test_closing_gives_up_what_was_claimed(tmp_path):
    with Cache(tmp_path / "c.sqlite") as one:
        claim(one, "k")
    with Cache(tmp_path / "c.sqlite") as other:
        assert claim(other, "k")


def test_what_could_not_be_kept_holds_nobody_up(tmp_path):
    with Cache(tmp_path / "c.sqlite") as one, Cache(tmp_path / "c.sqlite") as other:
        assert claim(one, "k")
        with pytest.raises(sqlite3.IntegrityError):
            one.put("k", {"text": "x"}, None)
        assert not claim(other, "k") and len(other) == 0  # the answer is not there, and the claim still is
        release(one, "k")
        other.put("k", {"text": "y"}, AT)
        assert one.get(["k"]) == {"k": {"text": "y"}}
