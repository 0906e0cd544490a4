"""Every source as it really is: it is read, keeps its contract, and gets a readiness whose every part has a number or a reason."""
import json
import os

import pytest

from esa_notebooks.data.cards import card, check_card, write_card
from esa_notebooks.data.checks import check
from esa_notebooks.data.contracts import contract_path, load_contract
from esa_notebooks.data.datasets import read
from esa_notebooks.data.drift import drift
from esa_notebooks.data.label_quality import label_quality
from esa_notebooks.data.leakage import leakage
from esa_notebooks.data.readiness import readiness
from esa_notebooks.data.sources import obtain
from esa_notebooks.data.tables import load_table, save_table
from esa_notebooks.runs.workflow import load_workflow
from esa_notebooks.settings import project_root
from tests.conftest import require

DATASETS = load_workflow(project_root() / "workflow" / "study.yaml")["lists"]["datasets"]


@pytest.fixture(scope="module", params=DATASETS)
def prepared(request, tmp_path_factory):
    """The table, its description, and its contract."""
    mirror = os.environ.get("ESA_DATA_MIRROR")
    require("mirror", bool(mirror) or request.param in ("telemetry", "shuttle"), "ESA_DATA_MIRROR is not set")
    df, meta = read(obtain(request.param, cache=tmp_path_factory.mktemp("raw"), mirror=mirror and __import__("pathlib").Path(mirror)))
    return df, meta, load_contract(contract_path(request.param))


def test_it_keeps_its_contract_and_what_is_accepted_has_a_reason(prepared):
    report = check(*prepared)
    assert not report.broken, str(report.broken[0])
    assert len(report.findings) > 15 and all(len(f.accepted) > 20 for f in report.findings if f.count and f.accepted)


def test_nothing_is_accepted_that_does_not_occur(prepared):
    contract = prepared[2]
    found = check(*prepared).findings
    for a in contract.accept:
        assert any(f.count and a.covers(f.rule, f.column, f.count) for f in found), f"{a.rule} is accepted in vain"


def test_every_part_of_readiness_has_a_number_or_a_reason(prepared):
    df, meta, contract = prepared
    ready = readiness(df, meta, check(*prepared).findings, drift=drift(df, meta, permutations=199), labels=label_quality(df, meta),
                      leakage=leakage(df, meta), fresh_days=contract.fresh_days, owner=contract.owner)
    assert len(ready.parts) == 9 and 0 < ready.score <= 100
    for part in ready.parts:
        assert (part.score is None and len(part.why) > 10) or (0 <= part.score <= 1 and part.evidence), part
    assert ready["documentation"].score > 0.8, ready["documentation"].evidence


def test_it_is_stored_and_described_without_loss(prepared, tmp_path):
    df, meta, contract = prepared
    path = save_table(df, tmp_path / f"{meta.dataset}.parquet", meta)
    again, described = load_table(path)
    assert described == meta and len(again) == len(df)
    written = write_card(card(meta, path, contract=contract), path.with_suffix(".json"))
    assert not [w for w in check_card(written) if "Error" in w]
    assert len(json.loads(written.read_text())["recordSet"][-1]["field"]) == len(meta.columns)
