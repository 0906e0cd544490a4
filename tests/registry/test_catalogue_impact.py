"""What breaks if data change: on graphs that are known."""

import pytest

from esa_notebooks.registry.catalogue import catalogue_of
from esa_notebooks.registry.impact import ImpactError, impact, known, sentence
from tests.registry.catalogue_world import AT, record, showcase


def entry(path, content, by=None, **more):
    return {
        "name": "dataset" if more.get("kind") == "source" else "it",
        "path": path,
        "sha256": content * 16,
        "made_by": by,
        **more,
    }


RAW, CONTRACT = entry("data/raw/a/a.csv", "aaaa", kind="source"), entry("data/contracts/a.yaml", "bbbb", kind="file")
TABLE, FEATURES, MODEL = entry("data/a.parquet", "cccc"), entry("data/f.parquet", "dddd"), entry("data/m.zip", "eeee")


def study():
    """raw, contract → prepare → table → features → features.parquet; features, table → train → model; table → look."""
    return {
        r["run_id"]: r
        for r in (
            record("01-prepare", "prepare", [RAW, CONTRACT], [TABLE], dataset="a"),
            record("02-features", "features", [{**TABLE, "made_by": "01-prepare"}], [FEATURES], columns=["x", "y"]),
            record("03-train", "train", [FEATURES, TABLE], [MODEL]),
            record("04-look", "look", [TABLE], [], column="x"),
            record(
                "05-other",
                "prepare",
                [entry("data/raw/b/b.csv", "9999", kind="source")],
                [entry("data/b.parquet", "8888")],
                dataset="b",
            ),
        )
    }


def model(name="m", data=("a",), state="production", **more):
    version = {"version": "1", "state": state, "run_id": "03-train", "sha256": "eeee" * 16, **more}
    return {
        "name": name,
        "title": name,
        "data": list(data),
        "states": [state],
        "versions": [version],
        "consumers": [],
        "watch": {"plan": {"channels": ["x"]}},
    }


def test_runs_stand_in_an_order_in_which_each_finds_its_inputs_made():
    told = impact("a", [model()], known(study()))
    assert [(a.level, a.run_id) for a in told.again] == [
        (1, "01-prepare"),
        (2, "02-features"),
        (2, "04-look"),
        (3, "03-train"),
    ]
    assert told.files == ("data/a.parquet", "data/f.parquet", "data/m.zip") and told.traced


def test_a_contract_and_a_product_can_change_too():
    data = known(study())
    assert impact("data/contracts/a.yaml", [], data).kind == "contract"
    assert len(impact("data/contracts/a.yaml", [], data).again) == 4
    assert [a.run_id for a in impact("data/f.parquet", [], data).again] == ["03-train"]
    assert impact("b", [model()], data).models == ()


def test_a_column_marks_and_does_not_narrow():
    told = impact("a", [model()], known(study()), column="x")
    assert [a.run_id for a in told.again if a.names_column] == ["02-features", "04-look"] and len(told.again) == 4
    assert told.models[0]["names_column"]
    assert not any(a.names_column for a in impact("a", [], known(study()), column="z").again)


def test_of_several_attempts_the_newest_stands_for_all():
    runs = study()
    runs["06-train"] = {**runs["03-train"], "run_id": "06-train"}
    runs["07-train"] = {**runs["03-train"], "run_id": "07-train", "status": "failed"}
    assert [a.run_id for a in impact("a", [], known(runs)).again if "train" in a.run_id] == ["06-train"]


def test_a_model_is_void_by_lineage_by_its_file_or_by_its_word():
    models = [
        model("by-run", ()),
        model("by-file", (), run_id="gone"),
        model("by-word", run_id="gone", sha256="0"),
        model("not", (), run_id="gone", sha256="0"),
        model("waits", (), "awaiting"),
        model("old", (), "replaced"),
    ]
    told = impact("a", models, known(study()))
    assert [(m["name"], m["known_by"]) for m in told.models] == [
        ("by-file", "lineage"),
        ("by-run", "lineage"),
        ("by-word", "declaration"),
        ("waits", "lineage"),
    ]


def test_consumers_are_told_once_those_of_production_first():
    who = {"name": "Shift", "kind": "people", "contact": "s@example.org"}
    models = [
        {**model("later", ("a",), "awaiting"), "consumers": [{**who, "name": "Lab"}, who]},
        {**model("first"), "consumers": [who]},
    ]
    told = impact("a", models, known(study()))
    assert [(c["name"], c["models"]) for c in told.consumers] == [("Shift", ["first", "later"]), ("Lab", ["later"])]
    assert "2 consumers" in sentence(told) and "1 of them in production" in sentence(told)


def test_a_data_set_that_only_declarations_know_is_said_to_be():
    told = impact("c", [{**model("m", ("c",)), "versions": [], "states": ["declared"]}], known(study()))
    assert not told.traced and told.again == () and told.models[0]["version"] is None
    assert "declarations alone" in sentence(told)


def test_nobody_knows_it():
    with pytest.raises(ImpactError, match="Did you mean `data/a.parquet`"):
        impact("data/a.parqet", [], known(study()))
    with pytest.raises(ImpactError, match="knows"):
        impact("", [], known({}))


def test_a_run_that_reads_what_it_writes_ends():
    loop = {"01": record("01", "again", [RAW, TABLE], [TABLE], dataset="a")}
    two = {
        "01": record("01", "a", [RAW, TABLE], [FEATURES], dataset="a"),
        "02": record("02", "b", [FEATURES], [TABLE]),
    }
    assert [a.level for a in impact("a", [], known(loop)).again] == [1]
    assert {a.run_id for a in impact("a", [], known(two)).again} == {"01", "02"}


@pytest.mark.parametrize(
    "change",
    [{"inputs": [{"path": "x"}]}, {"parameters": [{"value": 1}]}, {"notebook": None}, {"outputs": [{"sha256": "1"}]}],
)
def test_records_that_are_odd_are_left_out_and_named(change):
    runs = study()
    runs["08-odd"] = {**runs["03-train"], "run_id": "08-odd", **change}
    data = known(runs)
    assert data.odd == ("08-odd",) and len(impact("a", [], data).again) == 4


def test_in_a_whole_agency(tmp_path):
    agency = showcase(tmp_path)
    material = agency.gathered()
    told = impact("opssat", catalogue_of(material, AT).models, known(material.records))
    assert [(m["name"], m["version"], m["known_by"]) for m in told.models] == [
        ("opssat-anomalies", "2", "lineage"),
        ("opssat-anomalies", "3", "lineage"),
    ]
    assert [c["contact"] for c in told.consumers] == ["flight-dynamics@example.org", "digest@example.org"]
