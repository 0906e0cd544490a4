"""Lineage: back to the raw bytes, forward to what breaks, and the doubts that are stated instead of smoothed over."""

import hashlib
import itertools
import json
import random
from pathlib import Path

import pytest

from esa_notebooks import style
from esa_notebooks.data.lineage import (
    MOST,
    STATED,
    Doubt,
    Graph,
    LineageError,
    Node,
    affected,
    doubts,
    graph_of,
    lineage,
    picture,
    picture_alt,
    prov,
)
from esa_notebooks.data.tables import Column, Meta


def sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def entry(path: str, content: str, kind: str = "file") -> dict:
    return {"name": "x", "path": path, "sha256": sha(content), "bytes": 1, "kind": kind}


def run(number: int, inputs: list, outputs: list, status: str | None = "succeeded") -> dict:
    return {"run_id": f"20240501T{number:06d}Z-abc", "status": status, "notebook": {"path": "nbs/pipeline/a.ipynb"},
            "inputs": inputs, "outputs": outputs, "parameters": [{"name": "seed", "value": number}]}


RAW, OTHER = entry("raw.csv", "raw", "source"), entry("other.csv", "other", "source")
A, B, C, D = (entry(f"data/{n}.parquet", n) for n in "abcd")
STUDY = [run(1, [RAW], [A]), run(2, [RAW, OTHER], [B]), run(3, [A, B], [C]), run(4, [B], [D])]


def names(nodes) -> set[str]:
    return {n.name for n in nodes}


def meta(dataset: str, role: str = "channel", **sources: str) -> Meta:
    return Meta(dataset, dataset, "row", "real", (Column("x", role),), "", "", sources)


def test_upstream_and_downstream_are_exactly_what_the_runs_say():
    graph = graph_of(STUDY)
    c = graph.find("data/c.parquet")[0]
    assert names(graph.upstream(c)) == {"data/a.parquet", "data/b.parquet", "raw.csv", "other.csv"}
    assert names(graph.downstream(c)) == set() and names(graph.upstream(graph.find("raw.csv")[0])) == set()
    assert names(graph.downstream(graph.find("other.csv")[0])) == {"data/b.parquet", "data/c.parquet", "data/d.parquet"}
    assert {n.kind for n in graph.nodes} == {"source file", "table"}


def test_the_graph_agrees_with_walking_every_path_in_random_histories():
    """An oracle without any cleverness: who is reachable, by following single edges until nothing changes."""
    rng = random.Random(7)
    for _ in range(30):
        files = [entry(f"f{i}.parquet", f"{i}") for i in range(8)]
        history = [run(i, rng.sample(files[:k], rng.randint(1, k)), [files[k]]) for i, k in enumerate(range(1, 8))]
        graph = graph_of(rng.sample(history, len(history)))
        pairs = {(e.source.name, e.product.name) for e in graph.edges}
        reach = set(pairs)
        while more := {(a, d) for (a, b), (c, d) in itertools.product(reach, reach) if b == c} - reach:
            reach |= more
        for node in graph.nodes:
            assert names(graph.downstream(node)) == {b for a, b in reach if a == node.name}
            assert names(graph.upstream(node)) == {a for a, b in reach if b == node.name}


def test_the_lineage_of_one_product_leaves_out_what_does_not_concern_it():
    part = lineage(STUDY, "data/a.parquet")
    assert names(part.nodes) == {"raw.csv", "data/a.parquet", "data/c.parquet"}
    assert {(e.source.name, e.product.name) for e in part.edges} == {("raw.csv", "data/a.parquet"),
                                                                     ("data/a.parquet", "data/c.parquet")}


def test_edges_know_notebook_run_and_parameters():
    edge = graph_of(STUDY[:1]).edges[0]
    assert (edge.by, edge.run, edge.parameters) == ("nbs/pipeline/a.ipynb", STUDY[0]["run_id"], (("seed", "1"),))


def test_what_breaks_if_a_source_changes():
    graph = graph_of(STUDY)
    assert names(affected(graph, "other.csv")) == {"data/b.parquet", "data/c.parquet", "data/d.parquet"}
    assert names(affected(graph, sha("a")[:12])) == {"data/c.parquet"} and affected(graph, "data/d.parquet") == ()


def test_all_contents_of_a_source_count_when_it_changes():
    graph = graph_of([run(1, [RAW], [A]), run(2, [entry("raw.csv", "corrected", "source")], [B])])
    assert names(affected(graph, "raw.csv")) == {"data/a.parquet", "data/b.parquet"}
    assert names(affected(graph, sha("raw"))) == {"data/a.parquet"}


@pytest.mark.parametrize("status", ["failed", "timed_out", "killed", "cancelled", None])
def test_only_runs_that_succeeded_count(status):
    graph = graph_of([run(1, [RAW], [A]), run(2, [A], [B], status=status)])
    assert names(graph.nodes) == {"raw.csv", "data/a.parquet"}


def test_the_same_file_twice_is_one_node_and_two_runs_are_two_edges():
    graph = graph_of([run(1, [RAW], [A]), run(2, [RAW], [A])])
    assert len(graph.nodes) == 2 and len(graph.edges) == 2 and doubts(graph) == []


def test_the_newest_content_of_a_path_is_meant():
    new = entry("data/a.parquet", "a, again")
    records = [run(2, [RAW], [new]), run(1, [RAW], [A])]      # read in another order than they happened
    graph = graph_of(records)
    assert [n.sha256 for n in graph.find("data/a.parquet")] == [sha("a"), sha("a, again")]
    assert sha("a, again") in {n.sha256 for n in lineage(records, "data/a.parquet").nodes}
    assert sha("a") not in {n.sha256 for n in lineage(records, "data/a.parquet").nodes}
    assert [(d.what, d.name) for d in doubts(graph)] == [("two contents", "data/a.parquet")]
    assert len(prov(graph)["entity"]) == len(graph.nodes) == 3


def test_an_input_that_nobody_made_is_of_unknown_origin():
    graph = graph_of([run(1, [RAW, entry("notes.csv", "by hand")], [A])])
    assert [(d.what, d.name) for d in doubts(graph)] == [("unknown origin", "notes.csv")]


def test_a_product_that_changed_or_went_is_named(tmp_path):
    graph = graph_of(STUDY)
    (tmp_path / "data").mkdir()
    for name in "abcd":
        (tmp_path / f"data/{name}.parquet").write_text(name)
    assert doubts(graph, tmp_path) == []
    (tmp_path / "data/b.parquet").write_text("B")
    (tmp_path / "data/d.parquet").unlink()
    found = doubts(graph, tmp_path)
    assert [(d.what, d.name) for d in found] == [("changed", "data/b.parquet"), ("gone", "data/d.parquet")]
    assert sha("b")[:12] in found[0].why and sha("B")[:12] in found[0].why and str(tmp_path) not in str(found)


@pytest.mark.parametrize("path", ["../secret.txt", "data/../../secret.txt", "/etc/hostname", "link/secret.txt"])
def test_a_record_cannot_make_the_check_look_outside_the_project(tmp_path, path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link").symlink_to(tmp_path)
    monkeypatch.setattr("esa_notebooks.data.lineage.sha256", lambda p: pytest.fail(f"{p} was read"))
    found = doubts(graph_of([run(1, [RAW], [entry(path, "secret")])]), root)
    assert [(d.what, d.name) for d in found] == [("gone", path)] and "outside" in found[0].why


def test_cycles_are_found_and_nothing_hangs():
    graph = graph_of([run(1, [A], [B]), run(2, [B], [C]), run(3, [C], [A])])
    cycle = [d for d in doubts(graph) if d.what == "cycle"]
    assert len(cycle) == 1 and all(f"data/{n}.parquet" in cycle[0].why for n in "abc")
    a = graph.find("data/a.parquet")[0]
    assert a in graph.upstream(a) and names(affected(graph, "data/a.parquet")) == {"data/b.parquet", "data/c.parquet"}
    assert picture(graph) is not None and prov(graph)
    own = graph_of([run(1, [A], [A])])
    assert [d.what for d in doubts(own)] == ["cycle"]


def test_other_bytes_at_the_same_path_are_no_cycle():
    graph = graph_of([run(1, [A], [B]), run(2, [B], [entry("data/a.parquet", "a, again")])])
    assert "cycle" not in {d.what for d in doubts(graph)}


def test_a_table_states_its_sources_where_no_run_is_recorded():
    graph = graph_of(tables={"data/t.parquet": (sha("t"), meta("t", **{"raw.csv": sha("raw")}))})
    edge = graph.edges[0]
    assert (edge.source.name, edge.source.kind, edge.by, edge.run) == ("raw.csv", "source file", STATED, "")
    assert doubts(graph) == [] and "activity" in prov(graph) and prov(graph)["activity"] == {}


def test_a_recorded_origin_is_not_stated_twice():
    tables = {"data/a.parquet": (sha("a"), meta("a", **{"raw.csv": sha("raw"), "extra.csv": sha("extra")}))}
    graph = graph_of(STUDY[:1], tables)
    assert [(e.source.name, e.by) for e in graph.edges] == [("raw.csv", "nbs/pipeline/a.ipynb"), ("extra.csv", STATED)]


def test_a_table_of_features_is_called_so():
    graph = graph_of(STUDY[:1], {"data/a.parquet": (sha("a"), meta("a", "feature"))})
    assert graph.find("data/a.parquet")[0].kind == "features"
    assert all(e.product.kind == "features" for e in graph.edges)   # the edges follow


def test_a_table_without_sources_is_of_unknown_origin():
    graph = graph_of(tables={"data/t.parquet": (sha("t"), meta("t"))})
    assert [d.what for d in doubts(graph)] == ["unknown origin"]


@pytest.mark.parametrize("bad", [{"path": "x"}, {"sha256": "ab"}, {"path": "", "sha256": "ab"}, "x", None,
                                 {"path": 3, "sha256": "ab"}])
@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_half_a_record_is_refused_by_name(bad, part):
    record = {**run(1, [RAW], [A]), part: [bad]}
    with pytest.raises(LineageError, match=rf"20240501T000001Z-abc.*{part}"):
        graph_of([record])


def test_poor_records_are_read_as_far_as_they_go():
    assert graph_of([None, "x", {}, {"status": "succeeded"}]) == Graph((), ())
    graph = graph_of([{"status": "succeeded", "inputs": [RAW], "outputs": [A], "notebook": "x", "parameters": ["p"]}])
    assert graph.edges[0].by == "unknown" and graph.edges[0].parameters == ()


def test_an_unknown_name_gets_the_near_miss():
    with pytest.raises(LineageError, match="data/a.parquet"):
        lineage(STUDY, "data/a.parqet")
    with pytest.raises(LineageError):
        graph_of(STUDY).find(sha("a")[:4])      # too short to be a hash


def test_prov_is_complete_consistent_and_does_not_depend_on_order():
    document = prov(graph_of(STUDY))
    assert document == prov(graph_of(STUDY[::-1]))
    assert json.dumps(document) == json.dumps(prov(graph_of(STUDY[::-1])))
    prefixes = set(document["prefix"])
    entities, activities = set(document["entity"]), set(document["activity"])
    assert len(entities) == 6 and len(activities) == 4
    assert {e["esa:sha256"] for e in document["entity"].values()} == {x["sha256"] for x in (RAW, OTHER, A, B, C, D)}
    for part, pairs in (("used", 6), ("wasGeneratedBy", 4)):
        assert len(document[part]) == pairs
        assert all(x["prov:entity"] in entities and x["prov:activity"] in activities for x in document[part].values())
    assert len(document["wasDerivedFrom"]) == 6
    assert {i.partition(":")[0] for i in entities | activities} <= prefixes


def texts(fig) -> list[str]:
    return [t.get_text() for t in fig.axes[0].texts]


def test_the_picture_shows_every_file_from_left_to_right_and_is_the_same_twice():
    graph = graph_of(STUDY)
    fig = picture(graph, focus="data/c.parquet")
    for node in graph.nodes:
        assert node.sha256[:8] in texts(fig)
    x = {n.sha256[:8]: next(t for t in fig.axes[0].texts if t.get_text() == n.sha256[:8]).get_position()[0]
         for n in graph.nodes}
    assert all(x[e.source.sha256[:8]] < x[e.product.sha256[:8]] for e in graph.edges)
    assert len(fig.axes[0].patches) == len({(e.source, e.product) for e in graph.edges})
    assert style.to_svg(fig) == style.to_svg(picture(graph, focus="data/c.parquet"))
    assert fig.get_size_inches()[0] == style.WIDTH_IN


def test_texts_in_the_picture_do_not_overlap():
    tables = [entry(f"data/a-long-name-{i}.parquet", f"t{i}") for i in range(5)]
    graph = graph_of([*(run(i, [entry(f"raw_{i}.csv", f"r{i}", "source")], [t]) for i, t in enumerate(tables)),
                      run(9, tables, [A]), run(10, [A], [entry("data/a.croissant.json", "card")])])
    fig = picture(graph, wrong=[Doubt("two contents", "data/a.parquet", ""), Doubt("changed", "data/a.parquet", "")])
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    boxes = [t.get_window_extent(canvas.get_renderer()).shrunk(0.96, 0.8) for t in fig.axes[0].texts]
    assert [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)] == []
    width, height = fig.get_size_inches() * fig.dpi
    assert all(0 <= b.x0 and b.x1 <= width and 0 <= b.y0 and b.y1 <= height for b in boxes)
    assert min(t.get_fontsize() for t in fig.axes[0].texts) >= 11


def test_many_files_are_counted_and_not_squeezed():
    many = [entry(f"raw{i}.csv", f"r{i}", "source") for i in range(MOST + 5)]
    fig = picture(graph_of([run(1, many, [A])]))
    assert "and 5 more" in texts(fig) and sum(t.startswith("raw") for t in texts(fig)) == MOST


def test_doubts_are_words_and_shapes_in_the_picture():
    graph = graph_of(STUDY)
    fig = picture(graph, wrong=[Doubt("changed", "data/a.parquet", "why")])
    assert texts(fig).count("changed") == 1
    assert sum(line.get_markerfacecolor() == "none" for line in fig.axes[0].lines) == 1


@pytest.mark.filterwarnings("ignore:Glyph")   # the typeface has no such letters; the file is drawn all the same
@pytest.mark.parametrize("name", ["data/$x_1$ and $y$.parquet", r"data/$\frac$.csv", "data/" + "n" * 300 + ".parquet",
                                  "データ/表.parquet", "/", " "])
def test_any_name_can_be_drawn(name):
    graph = graph_of([run(1, [RAW], [entry(name, "n")]), run(2, [entry(name, "n")], [A])])
    assert style.to_svg(picture(graph, focus=name)) and name in picture_alt(graph)


def test_an_empty_graph_is_drawn_and_described():
    graph = Graph((), ())
    assert picture(graph) is not None and "nothing" in picture_alt(graph) and doubts(graph) == []


def test_the_alternative_text_says_what_the_picture_shows():
    graph = graph_of(STUDY)
    text = picture_alt(graph, "data/c.parquet", [Doubt("changed", "data/a.parquet", "")])
    assert "2 source files, 4 tables" in text and "data/c.parquet was made from data/a.parquet, data/b.parquet." in text
    assert "data/a.parquet: changed." in text


def test_nodes_with_one_content_under_two_names_stay_apart():
    copy = entry("data/copy.parquet", "a")
    graph = graph_of([run(1, [RAW], [A]), run(2, [A], [copy])])
    assert len(graph.nodes) == 3 and doubts(graph) == []
    assert isinstance(graph.nodes[0], Node) and len({n.key for n in graph.nodes}) == 3


def test_the_project_s_own_records_can_be_read():
    """The shape of record.json is not ours; if a project has run, its records must still be lineage."""
    found = sorted(Path(__file__).resolve().parents[2].glob("reports/runs/*/*/record.json"))
    if not found:
        pytest.skip("reports: nothing has been run here")
    graph = graph_of(json.loads(p.read_text(encoding="utf-8")) for p in found)
    assert all(len(n.sha256) == 64 for n in graph.nodes)
