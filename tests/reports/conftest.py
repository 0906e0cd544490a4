# ruff: noqa: E501  (prose of a notebook stands on one line)
"""Run folders made by hand, small and of every kind, for the tests of the reports."""

import copy
import hashlib
import json
from pathlib import Path

import pytest

from esa_notebooks import style
from esa_notebooks.runs import declare

RUN_ID = "20261124T124501Z-3fa9c1d2"


def md(source, **more):
    return {"cell_type": "markdown", "source": source, "metadata": {}, **more}


def code(source, *outputs, tags=()):
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {"tags": list(tags)},
        "outputs": list(outputs),
        "execution_count": 1,
    }


def raw(source):
    return {"cell_type": "raw", "source": source, "metadata": {}}


def display(**data):
    """One display output; keywords are MIME types written with __ for / (text__html) or given in a dict as `data`."""
    data = data.get("data") or {k.replace("__", "/"): v for k, v in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def error(ename, evalue, *lines):
    return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": list(lines)}


def declared(function, *args, **kwargs):
    """The display output that `function` of runs.declare (result, table, …) emits."""
    caught, real = [], declare.display
    declare.display = lambda bundle, raw=True: caught.append(bundle)
    try:
        declare.forget()
        function(*args, **kwargs)
    finally:
        declare.display = real
        declare.forget()
    return display(data=caught[0])


def declaration(**fields):
    """A declaration as a hostile notebook could write it, unchecked."""
    return display(
        data={declare.MIME: fields, "text/plain": "x", "text/html": "<p>x</p>", "image/svg+xml": fields.pop("_svg", "")}
        if fields.get("kind") == "figure"
        else {declare.MIME: fields, "text/plain": "x"}
    )


def make_record(cells, /, **changes):
    """A complete record for `cells`, with `changes` made in it."""
    for i, cell in enumerate(cells):
        cell.setdefault("id", f"cell{i:04d}")
    failed = next(
        (i for i, c in enumerate(cells) if any(o.get("output_type") == "error" for o in c.get("outputs", []))), None
    )
    states = [
        "completed" if failed is None or i < failed else "failed" if i == failed else "pending"
        for i in range(len(cells))
    ]
    declarations = [
        {**o["data"][declare.MIME], "cell": i, "cell_id": c["id"]}
        for i, c in enumerate(cells)
        for o in c.get("outputs", [])
        if declare.MIME in (o.get("data") or {})
    ]
    record = {
        "schema": "esa-notebooks/record/1",
        "run_id": RUN_ID,
        "key": hashlib.sha256(b"key").hexdigest(),
        "stage": "explore",
        "notebook": {
            "path": "nbs/pipeline/explore.ipynb",
            "title": "Shuttle telemetry, a first look",
            "question": "Can the shuttle telemetry carry a detector of anomalies?",
            "audience": "the mission data board",
        },
        "status": "succeeded",
        "reason": None,
        "interactive": False,
        "command": "esa-notebooks execute nbs/pipeline/explore.ipynb -p dataset=shuttle",
        "started": "2026-11-24T12:45:01Z",
        "ended": "2026-11-24T12:45:43Z",
        "duration_s": 42.3,
        "runner": {"pid": 1, "host": "elsewhere", "boot_id": "x"},
        "parameters": [
            {"name": "dataset", "value": "shuttle", "type": "str", "origin": "given", "help": "which data set"},
            {"name": "window", "value": 64, "type": "int", "origin": "default", "help": "rows in a window"},
        ],
        "inputs": [
            {
                "name": "prepared",
                "kind": "file",
                "path": "data/processed/shuttle.parquet",
                "sha256": hashlib.sha256(b"data").hexdigest(),
                "bytes": 812_345,
            }
        ],
        "outputs": [],
        "code": {
            "cells": [
                {
                    "id": c["id"],
                    "index": i,
                    "sha256": hashlib.sha256(c["source"].encode("utf-8", "replace")).hexdigest(),
                }
                for i, c in enumerate(cells)
                if c["cell_type"] == "code"
            ],
            "modules": {"esa_notebooks.data.telemetry": hashlib.sha256(b"module").hexdigest()},
        },
        "settings": {"paths.processed": "data/processed"},
        "git": {"commit": hashlib.sha1(b"commit").hexdigest(), "dirty": False, "why": None},
        "environment": {
            "python": "3.11.9",
            "platform": "Linux-x86_64",
            "cpus": 2,
            "lock_sha256": hashlib.sha256(b"lock").hexdigest(),
            "kernel": "python3",
            "packages_sha256": hashlib.sha256(b"p").hexdigest(),
            "differs_from_lock": [],
            "variables": {"PYTHONHASHSEED": "0"},
        },
        "cells": [
            {
                "index": i,
                "id": c["id"],
                "kind": c["cell_type"],
                "status": states[i],
                "duration_s": 0.2 if c["cell_type"] == "code" else 0.0,
                "warnings": [],
            }
            for i, c in enumerate(cells)
        ],
        "peak_memory_bytes": 412_000_000,
        "declarations": declarations,
        "warnings": [],
    }
    return {**record, **changes}


def make_run(reports, cells, /, stage="explore", run_id=RUN_ID, **changes):
    """A run folder below `reports` with record.json and notebook.ipynb; returns the folder."""
    cells = copy.deepcopy(cells)
    folder = Path(reports) / "runs" / stage / run_id
    folder.mkdir(parents=True, exist_ok=True)
    record = make_record(cells, **{"stage": stage, "run_id": run_id, **changes})
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder


def drawn():
    """A small figure in the project's style."""
    fig, ax = style.new(height=2.8)
    minutes = range(0, 300, 2)
    ax.plot(minutes, [24 + 3 * ((m % 95) < 60) - 0.01 * m for m in minutes], label="bus voltage")
    ax.plot(minutes, [22.5 + 2 * ((m % 95) < 62) for m in minutes], label="panel temperature")
    ax.axvspan(130, 160, color=style.PALETTE[1], alpha=0.18, lw=0)
    ax.annotate("anomaly", (131, 27.4), color=style.INK, fontsize=9)
    ax.set(xlabel="minutes since the start", ylabel="volts, °C")
    ax.legend(loc="upper right", ncols=2)
    return fig


def good_cells():
    """A realistic, executed notebook: several results, a figure, tables, mathematics, folded code."""
    import pandas as pd

    gaps = pd.DataFrame(
        {
            "channel": ["bus voltage", "panel temperature", "wheel speed 1", "wheel speed 2"],
            "missing": [0.214, 1.43, 0.0, 12.81],
            "longest_gap": [12, 340, 0, 12_406],
            "unit": ["V", "°C", "rpm", "rpm"],
        }
    )
    described = pd.DataFrame({"mean": [26.1, 24.0], "std": [1.42, 0.94]}, index=["bus voltage", "panel"])
    return [
        md(
            "# Shuttle telemetry, a first look\n\n> Can the shuttle telemetry carry a detector of anomalies?\n\nFor: the mission data board\n\n"
            "The Space Shuttle data set has 49,097 rows of nine integer channels. It comes without time stamps and without units, "
            "so that everything said about *when* is said in rows."
        ),
        code('dataset: str = "shuttle"   # which data set\nwindow: int = 64   # rows in a window', tags=["parameters"]),
        code(
            'from esa_notebooks.runs.declare import answer, result\n\nanswer(f"Yes: {share:.1%} of the rows are anomalous, and no channel lacks more than 13 %.")',
            declared(
                declare.answer,
                "Yes: 7.2 % of 49,097 rows are anomalous, in 3 of 9 channels they stand out, and no channel "
                "lacks more than 13 % of its samples.",
            ),
        ),
        md(
            "## The anomalies\n\nAnomalies are not rare here. With $n$ rows and $k$ of them labelled, the share is $k / n$, and its interval "
            "is Wilson's:\n\n$$\\frac{\\hat p + \\frac{z^2}{2n} \\pm z \\sqrt{\\frac{\\hat p (1 - \\hat p)}{n} + \\frac{z^2}{4 n^2}}}{1 + \\frac{z^2}{n}}$$\n\n"
            "A detector that calls everything nominal would be right in 93 % of the rows, which is why accuracy is not reported."
        ),
        code(
            "result('anomalous_share', 100 * share, unit='%', ci=wilson(k, n))\nresult('rows', n)",
            declared(
                declare.result,
                "anomalous_share",
                7.15114,
                unit="%",
                ci=(6.926, 7.383),
                label="anomalous rows",
                better=None,
            ),
            declared(declare.result, "rows", 49_097, label="rows"),
            declared(
                declare.result, "auc_pr", 0.91237, ci=(0.8871, 0.9342), label="AUC-PR of the baseline", better="higher"
            ),
            declared(declare.result, "first_fault", None, label="first fault", why="the data set has no time stamps"),
            declared(declare.measurement, "load_time", 0.4213, spread=0.05, unit="s", label="loading the data"),
        ),
        md(
            "### On the signal\n\nThe shaded stretch is labelled as an anomaly. It is visible in the voltage and hardly in the temperature: "
            "a detector that looks at one channel at a time will miss part of it."
        ),
        code(
            "figure(fig, caption=…, alt=…)",
            declared(
                declare.figure,
                drawn(),
                "Bus voltage and panel temperature over five hours; the shaded stretch is a labelled anomaly.",
                "Two lines over 300 minutes that step up and down with the orbit; a shaded band at 130 to 160 minutes.",
            ),
        ),
        md(
            "## Completeness\n\nWhat never arrived cannot be modelled. Three of the four channels are nearly whole; *wheel speed 2* has one long "
            "gap, in which\n\n- the ground station was down,\n- and the recorder was full.\n\n> A gap is not an anomaly of the spacecraft."
        ),
        code(
            "table(gaps, caption=…, units=…)",
            declared(
                declare.table,
                gaps.rename(columns={"longest_gap": "longest gap", "unit": "measured in"}),
                "Samples that never arrived, by channel.",
                units={"missing": "%", "longest gap": "rows"},
                digits={"missing": 1},
            ),
        ),
        code(
            "described",
            {
                "output_type": "execute_result",
                "execution_count": 9,
                "metadata": {},
                "data": {"text/html": described.to_html(), "text/plain": str(described)},
            },
        ),
        code("print(log)", stream("".join(f"row {i}: read\n" for i in range(40)))),
        code(
            "missing('opssat', 'the mirror was not reachable')",
            declared(declare.missing, "the same for OPS-SAT", "The mirror of the data could not be reached."),
        ),
    ]


def failed_cells():
    """The same notebook, stopped by an error in the cell with the figure."""
    cells = copy.deepcopy(good_cells())
    cells[6]["outputs"] = [
        error(
            "KeyError",
            "'bus voltage'",
            "\x1b[31m---------------------------------------------------------------------------\x1b[39m",
            "\x1b[31mKeyError\x1b[39m                                  Traceback (most recent call last)",
            "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[7]\x1b[39m\x1b[32m, line 1\x1b[39m\n\x1b[32m----> \x1b[39m\x1b[32m1\x1b[39m frame[\x1b[33m'bus voltage'\x1b[39m].plot()",
            "\x1b[31mKeyError\x1b[39m: 'bus voltage'",
        )
    ]
    for cell in cells[7:]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return cells


FAILED = {
    "status": "failed",
    "reason": {
        "what": "KeyError: 'bus voltage'",
        "where": "in the cell that draws the figure",
        "do": "Check that `prepare` wrote the channels under the names this notebook expects.",
    },
}


@pytest.fixture
def good_run(tmp_path):
    return make_run(tmp_path / "reports", good_cells())


@pytest.fixture
def failed_run(tmp_path):
    return make_run(tmp_path / "reports", failed_cells(), **FAILED)
