"""Keys: whose request it is, and what a key's file must never hold or allow."""

import json
import os
import threading
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from esa_notebooks.llm.keys import Keys, KeysError
from esa_notebooks.llm.policy import Refused

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
LAST = date(2027, 3, 31)


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "llm")


def refused(keys, key, at=NOON):
    with pytest.raises(Refused) as e:
        keys.holder(key, at)
    return e.value


def test_a_key_stands_for_its_team_through_its_last_second(keys):
    key = keys.issue("data-ai", LAST, at=NOON)
    assert keys.holder(key, NOON) == keys.holder(key, datetime(2027, 3, 31, 23, 59, 59, tzinfo=UTC)) == "data-ai"
    assert refused(keys, key, datetime(2027, 4, 1, tzinfo=UTC)).code == "expired_key"
    east = timezone(timedelta(hours=14))  # already April there, still March in UTC
    assert keys.holder(key, datetime(2027, 4, 1, 13, tzinfo=east)) == "data-ai"


def test_the_secret_is_in_no_file_and_no_message(keys, tmp_path):
    key = keys.issue("data-ai", LAST, at=NOON)
    keys.revoke(key[4:12], at=NOON)
    told = [str(refused(keys, key)), str(refused(keys, key[:-1] + "~")), str(refused(keys, key + "x"))]
    with pytest.raises(KeysError) as e:  # somebody gives the key where its name is wanted
        keys.revoke(key)
    secret = key[13:]
    assert all(
        secret not in text
        for text in [*told, str(e.value), *(p.read_text() for p in tmp_path.rglob("*") if p.is_file())]
    )
    assert secret[:8] not in repr(keys.entries())


@pytest.mark.parametrize(
    "key",
    [
        "",
        None,
        "esa-",
        "esa-00000000-" + "A" * 43,
        "Bearer x",
        "é" * 56,
        "\ud800",
        "x" * 100_000,
        "esa-0000000\n-" + "A" * 43,
    ],
)
def test_what_is_no_key_opens_nothing(keys, key):
    keys.issue("data-ai", LAST, at=NOON)
    e = refused(keys, key)
    assert (e.code, e.status) == (("no_key" if not key else "unknown_key"), 401)


def test_every_changed_character_is_noticed(keys):
    key = keys.issue("data-ai", LAST, at=NOON)
    for place in range(len(key)):
        other = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert refused(keys, other).code == "unknown_key"


def test_hashes_are_compared_in_constant_time(keys, monkeypatch):
    """Every key, known by name or not, goes through the comparison that takes the same time for all."""
    import esa_notebooks.llm.keys as module

    compared = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    key = keys.issue("data-ai", LAST, at=NOON)
    keys.holder(key, NOON)
    refused(keys, "esa-ffffffff-" + "A" * 43)
    refused(keys, "no key at all")
    assert len(compared) == 3 and {len(x) for pair in compared for x in pair} == {64}


def test_a_revoked_key_is_refused_by_everybody_at_once(keys):
    one, other = keys.issue("data-ai", LAST, at=NOON), keys.issue("data-ai", LAST, at=NOON)
    elsewhere = Keys(keys.path.parent)
    assert elsewhere.holder(one, NOON) == "data-ai"
    keys.revoke(one[4:12], at=NOON)
    assert refused(elsewhere, one).code == "revoked_key" and elsewhere.holder(other, NOON) == "data-ai"
    again = keys.revoke(one[4:12], at=NOON + timedelta(days=1))
    assert again.revoked == "2027-03-01T12:00:00Z", "a second time changes nothing"


def test_a_file_that_others_may_read_is_not_trusted(keys):
    key = keys.issue("data-ai", LAST, at=NOON)
    os.chmod(keys.path, 0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        keys.holder(key, NOON)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"schema": "x", "keys": []}',
        '{"schema": "esa-notebooks/llm-keys/1", "keys": [{"team": "a"}]}',
        "[" * 5000,
    ],
)
def test_a_damaged_file_lets_nobody_in(keys, content):
    key = keys.issue("data-ai", LAST, at=NOON)
    keys.path.write_text(content)
    with pytest.raises(KeysError, match="cannot be read"):
        keys.holder(key, NOON)
    with pytest.raises(KeysError):  # and is not overwritten by the next key
        keys.issue("data-ai", LAST, at=NOON)
    assert keys.path.read_text() == content


@pytest.mark.parametrize("team,until", [("data-ai", date(2027, 2, 28)), ("Data AI", LAST), ("", LAST), ("../x", LAST)])
def test_no_key_for_nobody_or_for_yesterday(keys, team, until):
    with pytest.raises(KeysError):
        keys.issue(team, until, at=NOON)
    assert not keys.path.exists()


def test_times_have_zones(keys):
    with pytest.raises(KeysError, match="no zone"):
        keys.issue("data-ai", LAST, at=datetime(2027, 3, 1))
    with pytest.raises(KeysError, match="no zone"):
        keys.holder("x", datetime(2027, 3, 1))


def test_keys_issued_at_once_are_all_kept(keys):
    made = []
    threads = [threading.Thread(target=lambda: made.append(keys.issue("data-ai", LAST, at=NOON))) for _ in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(made)) == 16 == len(json.loads(keys.path.read_text())["keys"])
    assert {keys.holder(key, NOON) for key in made} == {"data-ai"}
