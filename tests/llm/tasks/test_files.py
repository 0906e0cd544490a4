"""Task files: what is flawed is refused with its line, and the same items give the same bytes."""

import json

import pytest

from esa_notebooks.llm.tasks.files import LONGEST, Item, TaskError, read_task, seal, write_task

HEAD = {"name": "t", "version": "1", "kind": "classification", "title": "T", "licence": "CC0-1.0", "source": "s", "instructions": "Say.",
        "made_by": "a test", "labels": ["odd", "even"]}  # fmt: skip


def items(n=6):
    return [Item(f"i{i}", f"g{i // 2}", {"text": f"number {i} {{x}} %s é"}, None, ["even", "odd"][i % 2], "test" if i > 3 else "train") for i in range(n)]


@pytest.fixture
def path(tmp_path):
    write_task(tmp_path / "t.jsonl", HEAD, items())
    return tmp_path / "t.jsonl"


def test_the_same_items_give_the_same_bytes_and_come_back(path, tmp_path):
    again = write_task(tmp_path / "u.jsonl", dict(reversed(HEAD.items())), items())
    assert (tmp_path / "u.jsonl").read_bytes() == path.read_bytes()
    assert read_task(path).items == tuple(items()) and read_task(path) == again
    other = write_task(tmp_path / "v.jsonl", HEAD, items(5))
    assert other.digest != again.digest and other.head["canary"] != again.head["canary"]


def changed(path, line, change):
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    change(lines[line - 1])
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))


FLAWS = [
    (3, {"gold": None}, "Line 3, item 'i1': has no gold"),
    (3, {"gold": "evan"}, "Line 3, item 'i1'.*Did you mean `even`"),
    (3, {"id": "i0"}, "Lines 2 and 3 both have the id 'i0'"),
    (3, {"split": "tset"}, "Line 3.*Did you mean `test`"),
    (3, {"split": "test"}, "Lines 2 and 3: the group 'g0' is in the splits train and test"),
    (6, {"input": {"text": "number 0 {x} %s é"}}, "Lines 2 and 6: the same input is in the splits train and test"),
    (3, {"input": "text"}, "Line 3.*named texts"),
    (3, {"input": {"text": " "}}, "Line 3.*empty"),
    (3, {"input": {"text": "\ud800"}}, "Line 3 holds half of a surrogate pair"),
    (3, {"glod": "even"}, "Line 3: unknown field 'glod'"),
    (3, {"id": 7}, "Line 3: 'id' is 7"),
    (1, {"kind": "clasification"}, "Did you mean `classification`"),
    (1, {"labels": ["odd", "Odd"]}, "two or more different"),
    (1, {"schema": "task/2"}, "Line 1 is not the head"),
    (1, {"name": "../t"}, "small letters"),
    (1, {"licence": ""}, "no 'licence'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "change", "said"), FLAWS, ids=[said[:40] for _, _, said in FLAWS])
def test_a_flaw_is_refused_with_its_line_though_the_seal_is_made_anew(path, line, change, said):
    changed(path, line, lambda value: value.update(change))
    with pytest.raises(TaskError, match=said) as e:
        seal(path)
    assert "\n" not in str(e.value) and "t.jsonl" in str(e.value)


def test_a_missing_gold_field_and_a_key_twice(path):
    changed(path, 4, lambda value: value.pop("gold"))
    with pytest.raises(TaskError, match="Line 4: Item 'i2' has no 'gold'"):
        seal(path)
    path.write_text(path.read_text().replace('"id": "i2"', '"id": "i2", "id": "i9"'))
    with pytest.raises(TaskError, match="Line 4 is not JSON: the key 'id' is there twice"):
        seal(path)


@pytest.mark.parametrize(("damage", "said"), [
    (lambda b: b"", "is empty"), (lambda b: b" \n\n", "is empty"), (lambda b: b[: b.index(b"\n") + 1], "was cut or changed"),
    (lambda b: b[:-20], "was cut or changed"), (lambda b: b.replace(b"number 3", b"number 9"), "says sha256"),
    (lambda b: b"\xff" + b, "Line 1 is not UTF-8"), (lambda b: b"x" * (LONGEST + 1), "Line 1 has 1,000,001 bytes")])  # fmt: skip
def test_a_damaged_file_is_refused(path, damage, said):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TaskError, match=said):
        read_task(path)


@pytest.mark.parametrize(("line", "said"), [(b"{not json}", "Line 4 is not JSON"), (b'{"id": NaN}', "NaN is not JSON"), (b"\xe9\xe9", "Line 4 is not UTF-8 at byte 1"),
                                            (b"[" * 100_000, "Line 4 is not JSON"), (b"[]", "Line 4 is not an object"), (b"x" * (LONGEST + 1), "Line 4 has")])  # fmt: skip
def test_a_line_that_is_no_item_is_named_by_its_number(path, line, said):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[4:]]))
    with pytest.raises(TaskError, match=said):
        seal(path)


def test_a_changed_file_can_be_sealed_and_keeps_its_canary(path):
    before = read_task(path)
    path.write_text(path.read_text().replace("number 3", "number 33"))
    after = seal(path)
    assert read_task(path) == after and after.head["canary"] == before.head["canary"] and after.digest != before.digest


def test_what_cannot_be_read_is_not_written(tmp_path):
    for wrong in ([*items(), items()[0]], [], [Item("a", "g", {"t": "x"}, None, float("nan"), "test")], [Item("a", "g", {"t": "\ud800"}, None, "odd", "test")]):
        with pytest.raises(TaskError):
            write_task(tmp_path / "x.jsonl", HEAD, wrong)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TaskError, match="cannot be read"):
        read_task(tmp_path / "absent.jsonl")


KINDS = [
    ("multiple choice", ["a", "b"], "c", "not among the options"), ("multiple choice", ["a"], "a", "needs two or more"),
    ("multiple choice", ["a", "a"], "a", "all different"), ("extraction", None, {"f": []}, "texts or numbers"),
    ("retrieval", ["p", "q"], {"answer": "x"}, "two texts"), ("retrieval", ["p", "z"], {"answer": "x", "passage": "p"}, "option 'z' has no text"),
    ("query", None, {"sql": "SELECT 1", "rows": []}, "at least one row"), ("query", None, {"sql": "SELECT 1", "rows": [[1]]}, "names the database None"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "gold", "said"), KINDS, ids=[said for *_, said in KINDS])
def test_each_kind_has_its_own_rule_for_gold(tmp_path, kind, options, gold, said):
    item = Item("a", "g", {"question": "?", "p": "x", "q": "y"}, options, gold, "test")
    with pytest.raises(TaskError, match=said):
        write_task(tmp_path / "x.jsonl", HEAD | {"kind": kind, "labels": None}, [item])
