"""Paths: where a notebook may read and write, and names that are hard to carry."""
import json
import os

import pytest

from esa_notebooks.runs.code import NotebookError
from esa_notebooks.runs.parameters import ParameterError
from tests.conftest import require
from tests.runs.conftest import Study, text_of
from tests.runs.test_parameters import no_kernel, refused  # noqa: F401

OUT = "out: OutputFile"
REFUSED_OUTPUTS = {
    "parent": ("../t.csv", "not inside the project"),
    "parent-from-within": ("data/processed/../../../t.csv", "not inside the project"),
    "absolute": ("/tmp/t.csv", "not inside the project"),
    "root": (".", "not inside the project"),
    "into-nbs": ("nbs/t.csv", "writes below data/interim, data/processed or reports/"),
    "into-nbs-from-data": ("data/processed/../../nbs/t.csv", "write it without `..`"),
    "settings": ("settings.ini", "writes below"),
    "library": ("esa_notebooks/x.py", "writes below"),
    "raw": ("data/raw/t.csv", "writes below"),
    "contracts": ("data/contracts/t.csv", "writes below"),
    "runs": ("reports/runs/prepare/x/record.json", "writes below"),
    "the-data-folder": ("data", "writes below"),
    "secrets": (".secrets/KEY", "writes below"),
    "nul": ("data/processed/a\0b.csv", "NUL"),
    "300-characters": ("data/processed/" + "n" * 300, "a file name may have 255 bytes"),
    "130-umlauts": ("data/processed/" + "ü" * 130, "a file name may have 255 bytes"),
    "a-folder": ("data/interim", "which is a folder"),
    "empty": ("", "`out` is ''"),
    "not-utf8": ("data/processed/" + os.fsdecode(b"\xff"), "no text in UTF-8"),
}


@pytest.mark.parametrize("case", list(REFUSED_OUTPUTS))
def test_output_refused(study, no_kernel, case):  # noqa: F811
    place, pattern = REFUSED_OUTPUTS[case]
    if case == "a-folder":
        (study.root / "data" / "interim" / "sub").mkdir(parents=True)
        place = "data/interim/sub"
    assert pattern in refused(study, study.write("n", parameters=OUT), {"out": place})


def test_an_output_that_is_an_input_is_refused(study, no_kernel):  # noqa: F811
    (study.root / "data" / "interim").mkdir(parents=True)
    (study.root / "data" / "interim" / "t.csv").touch()
    path = study.write("n", parameters="source: InputFile\n" + OUT)
    with pytest.raises(ParameterError, match="also another output or an input"):
        study.run(path, {"source": "data/interim/t.csv", "out": "data/interim/./t.csv"})


def test_two_outputs_of_one_name_are_refused(study, no_kernel):  # noqa: F811
    path = study.write("n", parameters="a: OutputFile\nb: OutputFile")
    assert "also another output" in refused(study, path, {"a": "data/interim/t.csv", "b": "data/interim//t.csv"})


def test_a_link_into_the_notebooks_is_refused(study, no_kernel):  # noqa: F811
    (study.root / "data" / "interim").mkdir(parents=True)
    (study.root / "data" / "interim" / "link").symlink_to(study.root / "nbs")
    with pytest.raises(ParameterError, match="leads to nbs/n.ipynb"):
        study.run(study.write("n", parameters=OUT), {"out": "data/interim/link/n.ipynb"})


def test_data_kept_on_another_disk_is_no_obstacle(study, tmp_path):
    (tmp_path / "disk").mkdir()
    (study.root / "data").mkdir()
    (study.root / "data" / "processed").symlink_to(tmp_path / "disk")
    run = study.run(study.write("n", "out.write_text('1')", parameters=OUT), {"out": "data/processed/t.csv"})
    assert run.record["status"] == "succeeded" and (tmp_path / "disk" / "t.csv").read_text() == "1"


def test_a_parent_that_is_a_file_is_refused_before_a_kernel(study, no_kernel):  # noqa: F811
    (study.root / "data" / "interim").mkdir(parents=True)
    (study.root / "data" / "interim" / "x").write_text("a file")
    path = study.write("n", parameters="first: OutputFile\nsecond: OutputFile")
    with pytest.raises(ParameterError, match="`second`: .* cannot be written: Not a directory"):
        study.run(path, {"first": "data/processed/first.csv", "second": "data/interim/x/t.csv"})
    assert study.remains() == ["data/interim/x"]
    assert not list(study.root.rglob(".2*")), "the staging folder of the first output is left behind"


def test_a_folder_that_cannot_be_written_is_refused_before_a_kernel(study, no_kernel):  # noqa: F811
    require("unprivileged", os.geteuid() != 0, "root may write everywhere")
    folder = study.root / "data" / "processed"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    with pytest.raises(ParameterError, match="cannot be written: Permission denied"):
        study.run(study.write("n", parameters=OUT), {"out": "data/processed/t.csv"})
    folder.chmod(0o755)


REFUSED_INPUTS = {
    "near-miss": ("data/processed/shutle.csv", "does not exist. Did you mean `shuttle.csv`?"),
    "nothing-like-it": ("data/processed/zzzzzz", "does not exist. It is made by an earlier notebook"),
    "no-such-folder": ("data/none/x.csv", "does not exist"),
    "outside": ("../shuttle.csv", "not inside the project"),
    "absolute": ("/etc/passwd", "not inside the project"),
    "a-folder": ("data/processed", "is a folder"),
    "nul": ("data/processed/\0", "NUL"),
    "300-characters": ("data/processed/" + "n" * 300, "255 bytes"),
    "below-a-file": ("data/processed/shuttle.csv/x", "does not exist"),
}


@pytest.mark.parametrize("case", list(REFUSED_INPUTS))
def test_input_refused(study, no_kernel, case):  # noqa: F811
    place, pattern = REFUSED_INPUTS[case]
    (study.root / "data" / "processed").mkdir(parents=True)
    (study.root / "data" / "processed" / "shuttle.csv").touch()
    with pytest.raises(ParameterError) as e:
        study.run(study.write("n", parameters="source: InputFile"), {"source": place})
    assert pattern in str(e.value) and study.remains() == ["data/processed/shuttle.csv"]


def broken(study: Study, case: str):
    """A notebook that cannot be executed: (path, pattern)."""
    path = study.write("n", "1")
    good = json.loads(path.read_text())
    changed = {"format-3": {**good, "nbformat": 3, "worksheets": []}, "no-cells": {"nbformat": 4},
               "cells-no-list": {**good, "cells": {}}, "a-list": [1], "cell-no-mapping": {**good, "cells": [1]},
               "cell-unknown": {**good, "cells": [{"cell_type": "heading", "source": ""}]}}
    if case in changed:
        path.write_text(json.dumps(changed[case]))
        return path, "neither code nor markdown nor raw" if case.startswith("cell-") else "not a Jupyter notebook of format 4"
    texts = {"not-json": (b"{", "cannot be read as a notebook"), "empty": (b"", "cannot be read"),
             "not-utf8": (b"\xff\xfe", "cannot be read")}
    if case in texts:
        path.write_bytes(texts[case][0])
        return path, texts[case][1]
    outside = study.root.parent / "outside.ipynb"
    outside.write_text(json.dumps(good))
    (study.root / "nbs" / "link.ipynb").symlink_to(outside)
    return {"missing-near-miss": ("nbs/nn.ipynb", "Did you mean `n.ipynb`?"), "outside": (outside, "outside the project"),
            "outside-by-dots": ("nbs/../../outside.ipynb", "outside the project"),
            "outside-by-link": ("nbs/link.ipynb", "outside the project"), "a-folder": (study.root / "nbs", "cannot be read"),
            "nul": ("nbs/\0.ipynb", "no NUL"), "300-characters": ("nbs/" + "n" * 300, "255 bytes"),
            "below-a-file": ("nbs/n.ipynb/x.ipynb", "no notebook")}[case]


@pytest.mark.parametrize("case", ["format-3", "no-cells", "cells-no-list", "a-list", "cell-no-mapping", "cell-unknown",
                                  "not-json", "empty", "not-utf8", "missing-near-miss", "outside", "outside-by-dots",
                                  "outside-by-link", "a-folder", "nul", "300-characters", "below-a-file"])
def test_notebook_refused(study, no_kernel, case):  # noqa: F811
    path, pattern = broken(study, case)
    assert pattern in refused(study, path, error=NotebookError)


def test_hard_names_work_together(tmp_path):
    """Braces, spaces, quotes and other scripts in the project's folder, the notebook's name, inputs and outputs."""
    study = Study(tmp_path / "a {project} with 'quotes' and ü {0}")
    place = study.root / "data" / "interim" / "in {braces} \"x\" 漢.csv"
    place.parent.mkdir(parents=True)
    place.write_text("content")
    path = study.write("a {notebook} 'x'", "out.write_text(source.read_text() + '!')\nprint(out)",
                       parameters=f"source: InputFile\n{OUT}")
    given = {"source": place.relative_to(study.root).as_posix(), "out": "data/processed/out {x} 'ü' $(id);.csv"}
    run = study.run(path, given)
    assert run.record["status"] == "succeeded", run.record["reason"]
    assert (study.root / given["out"]).read_text() == "content!"
    assert text_of(run).strip() == given["out"]
    assert [o["path"] for o in run.record["outputs"]] == [given["out"]]
    assert run.record["notebook"]["path"] == "nbs/a {notebook} 'x'.ipynb" and run.record["stage"] == "a {notebook} 'x'"
    import shlex
    assert shlex.split(run.record["command"])[2] == "nbs/a {notebook} 'x'.ipynb"


def test_a_name_of_255_bytes_works(study):
    name = "n" * 251 + ".csv"
    run = study.run(study.write("n", "out.write_text('1')", parameters=OUT), {"out": f"data/processed/{name}"})
    assert run.record["status"] == "succeeded" and (study.root / "data" / "processed" / name).is_file()


def test_a_notebook_without_cell_ids_or_metadata_works(study):
    path = study.write("n", "print(1)", {"cell_type": "raw", "source": "raw", "metadata": {}})
    notebook = json.loads(path.read_text()) | {"nbformat_minor": 2}
    for cell in notebook["cells"]:
        del cell["id"]
    notebook["cells"][3].pop("metadata")
    path.write_text(json.dumps(notebook))
    assert study.run(path).record["status"] == "succeeded"


def test_nothing_of_this_machine_stands_in_a_run_folder(study):
    """A report travels: where the project stood, and the staging folder, are nobody's business."""
    path = study.write("n", "out.write_text('1')\nprint(out)", parameters=OUT)
    run = study.run(path, {"out": "data/processed/t.csv"})
    for file in run.folder.iterdir():
        assert str(study.root) not in file.read_text(), file.name
