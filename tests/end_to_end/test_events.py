"""The notebook of sequences on a user's own two channels, from a packed file to a report."""
import json

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import smap
from esa_notebooks.data.tables import Column, Meta, save_table

from .conftest import copy_project, tool

COLUMNS = (Column("channel", "group"), Column("split", "split"), Column("step", "order"), Column("value", "value"),
           Column("commands", "context"), Column("anomaly", "label"))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("events") / "project")
    rng, channels = np.random.default_rng(5), []
    for name in ("X-1", "X-2"):
        train, test = ((0.6 * np.sin(np.arange(n) / 30) + 0.02 * rng.standard_normal(n)).astype("f4") for n in (1500, 2500))
        label = np.zeros(2500, "u1")
        if name == "X-2":
            test[1500:1650] += np.float32(0.35)
            label[1500:1650] = 1
        channels.append(smap.Channel(name, train, np.zeros((1500, 2), "u1"), test, np.zeros((2500, 2), "u1"), label))
    packed = smap.write_packed(project / "own.npz", channels)
    meta = Meta("own", "Two channels of ours", "sample of one channel", "real", COLUMNS, "none", "none", {},
                notes=("Invented for a test.",))
    save_table(smap.read_packed(packed), project / "data/processed/own.parquet", meta)
    return project


def test_a_planted_step_reaches_the_report(project):
    ended = tool(project, "execute", "nbs/pipeline/events.ipynb", "-p", "prepared=data/processed/own.parquet",
                 "-p", "alarms=data/interim/alarms/own.parquet")
    assert ended.code == 0, ended.err
    found = pd.read_parquet(project / "data/interim/alarms/own.parquet")
    assert found.channel.tolist() == ["X-2"] and found.start[0] < 1650 and found.end[0] > 1500
    (folder,) = (project / "reports/runs/events").iterdir()
    record = json.loads((folder / "record.json").read_text())
    values = {d["name"]: d for d in record["declarations"] if d["kind"] == "result"}
    assert values["telemanom_recall"]["value"] == 1 and values["false_alarms"]["value"] == 0
    assert values["telemanom_recall"]["ci"] is None, "two channels are too few for an interval"
    page = (folder / "report.html").read_text()
    assert "finds 1 of 1 anomalous sequences in 2 channels" in page and "none are known for Two channels" in page
