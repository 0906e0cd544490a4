"""Readiness: every part falls for its own fault and further for more of it, nothing unknown counts as good."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esa_notebooks.data import opssat
from esa_notebooks.data.drift import Drift, drift
from esa_notebooks.data.findings import Finding
from esa_notebooks.data.label_quality import LabelQuality
from esa_notebooks.data.leakage import leakage
from esa_notebooks.data.readiness import BOUNDS, NOT_READY, READY, RESERVED, Readiness, documented, readiness
from esa_notebooks.data.tables import Column, Meta

MIRROR = Path(os.environ.get("ESA_DATA_MIRROR", "nowhere"))
PARTS = [
    "completeness",
    "validity",
    "consistency",
    "uniqueness",
    "timeliness",
    "labels",
    "leakage",
    "drift",
    "documentation",
]


@dataclass(frozen=True)
class Found:
    rule: str
    part: str
    count: int = 0
    of: int = 100
    column: str = "f0"
    table: str = "features"
    message: str = "it was found."
    accepted: str = ""
    broken: bool = False


META = Meta(
    "t",
    "A table",
    "observation",
    "synthetic",
    (
        *(Column(f"f{i}", "feature", "V", f"Voltage {i}") for i in range(4)),
        Column("number", "id", title="Number"),
        Column("anomaly", "label", title="Anomaly"),
        Column("split", "split", title="Split"),
    ),
    "CC0",
    "Nobody",
    {},
    notes=("The split is random.",),
)
RIGHT = LabelQuality(400, 400, 0, (0, 0), auc=0.99, method="a classifier")
HELD = [Found("in_range", "validity"), Found("unit", "consistency", of=1), Found("unique_key", "uniqueness")]


def table(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    df = pd.DataFrame(rng.standard_normal((n, 4)), columns=[f"f{i}" for i in range(4)])
    return df.assign(number=range(n), anomaly=rng.integers(0, 2, n), split=np.where(np.arange(n) % 4, "train", "test"))


def score(df: pd.DataFrame, meta: Meta = META, findings=HELD, labels=RIGHT, **more) -> Readiness:
    given = {"drift": drift(df, meta, permutations=199), "leakage": leakage(df, meta), "owner": "Data unit"} | more
    return readiness(df, meta, findings, labels=labels, **given)


@pytest.fixture(scope="module")
def good() -> Readiness:
    return score(table())


def test_a_good_table_is_ready_and_says_what_did_not_apply(good):
    assert [p.name for p in good.parts] == PARTS == list(BOUNDS)
    assert good.score == 100 and good.verdict == READY and good.answer == "100 of 100: ready (no score for timeliness)."
    assert good["timeliness"].score is None and "no clock" in good["timeliness"].why
    assert good.table()["evidence"].str.len().min() > 10


def nan_values(df, share):
    return df.mask(np.random.default_rng(0).random(df.shape) < share).assign(
        number=df.number, anomaly=df.anomaly, split=df.split
    )


def copied(df, share):
    test, train = df.index[df.split == "test"], df.index[df.split == "train"]
    n = round(share * len(test))
    df.loc[test[:n], [f"f{i}" for i in range(4)]] = df.loc[train[:n], [f"f{i}" for i in range(4)]].to_numpy()
    return df


def shifted(df, share):
    df.loc[df.split == "test", [f"f{i}" for i in range(round(4 * share))]] += 2.0
    return df


SPOILT = {
    "completeness": lambda s: score(nan_values(table(), s)),
    "validity": lambda s: score(table(), findings=[*HELD, Found("in_range", "validity", round(100 * s), column="f1")]),
    "consistency": lambda s: score(
        table(), findings=[*HELD, *(Found("unit", "consistency", int(i < 8 * s), 1, f"u{i}") for i in range(8))]
    ),
    "uniqueness": lambda s: score(pd.concat([table(), table().head(round(400 * s))], ignore_index=True)),
    "labels": lambda s: score(table(), labels=replace(RIGHT, issues=round(400 * s))),
    "leakage": lambda s: score(copied(table(), s)),
    "drift": lambda s: score(shifted(table(), s)),
    "documentation": lambda s: score(
        table(),
        replace(META, columns=tuple(replace(c, unit="" if i < 4 * s else c.unit) for i, c in enumerate(META.columns))),
    ),
}


@pytest.mark.parametrize("part", SPOILT)
def test_each_part_falls_with_its_fault_and_further_with_more(good, part):
    scored = [good, *(SPOILT[part](share) for share in (0.25, 0.5, 0.75))]
    values = [r[part].score for r in scored]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))
    assert [r.score for r in scored] == sorted((r.score for r in scored), reverse=True) and scored[-1].score < 100
    bystanders = set(PARTS) - {
        part,
        "timeliness",
        "leakage" if part == "uniqueness" else part,
        "drift" if part == "completeness" else part,
    }
    assert [n for n in bystanders if scored[1][n].score != good[n].score] == []


def test_units_removed_break_consistency_only_by_contract_and_documentation_always(good):
    bare = replace(META, columns=tuple(replace(c, unit="") for c in META.columns))
    assert score(table(), bare)["documentation"].score < good["documentation"].score == 1


def test_the_mean_does_not_hide_the_weakest_part():
    found = score(table(), labels=replace(RIGHT, issues=60))
    assert found.score >= 98 and found.verdict == NOT_READY and "labels is 0.85 where 0.9 is asked" in found.answer


def test_a_broken_rule_is_not_outvoted_by_a_hundred_that_hold():
    held = [Found("unit", "consistency", 0, 1, f"f{i}") for i in range(100)]
    found = score(table(), findings=[*HELD, *held, Found("unit", "consistency", 1, 1, "hot", broken=True)])
    assert found["consistency"].score > 0.98 and found.verdict == NOT_READY
    assert "the contract is broken in consistency (unit)" in found.answer
    accepted = score(
        table(), findings=[*HELD, *held, Found("unit", "consistency", 1, 1, "hot", accepted="Old sensor.")]
    )
    assert accepted.verdict == RESERVED and "Accepted: Old sensor." in accepted["consistency"].evidence


@pytest.mark.parametrize(
    "missing, part",
    [
        ({"labels": None}, "labels"),
        ({"drift": None}, "drift"),
        ({"leakage": None}, "leakage"),
        ({"findings": []}, "validity"),
        ({"findings": []}, "consistency"),
        ({"labels": LabelQuality(400, why="it could not")}, "labels"),
    ],
)
def test_what_nobody_examined_has_no_score_and_costs_the_verdict(missing, part):
    found = score(table(), **missing)
    assert found[part].score is None and found[part].verdict == "not examined" and found[part].why
    assert found.verdict == RESERVED and f"no score for {part}" in found.answer


def test_nothing_measured_is_no_hundred():
    meta = Meta("t", "", "thing", "real", (Column("s", "context"),), "", "", {})
    found = readiness(pd.DataFrame({"s": []}), meta, [], drift=None, labels=None, leakage=None)
    assert found.verdict == NOT_READY and found.score < 60


def test_a_split_between_neighbours_is_a_remark_and_a_reservation():
    meta = replace(META, columns=(*META.columns, Column("channel", "group", title="Channel")))
    found = score(table().assign(channel="A"), meta)
    assert found["leakage"].score == 1 and found.verdict == RESERVED and "lie between two training rows" in found.answer


def test_a_feature_that_tells_the_label_is_a_remark():
    df = table()
    found = score(df.assign(f3=df.anomaly + 0.0))
    assert "`f3` alone tells the label" in found["leakage"].remarks[0] and found.verdict != READY


def test_a_history_that_changes_is_reserved_and_a_split_that_differs_is_not_ready():
    rows = pd.DataFrame({"name": ["a", "b"], "effect": [1.0, 1.0], "p": [0.001, 0.001], "drifted": [True, True]})
    history, split = (score(table(), drift=Drift("before against after", rows, splits=s)) for s in (False, True))
    assert history["drift"].score == split["drift"].score == 0
    assert history.verdict == RESERVED and split.verdict == NOT_READY


def test_drift_that_could_not_be_tested_is_not_examined():
    rows = pd.DataFrame({"name": ["a"], "effect": [1.0], "p": [np.nan], "drifted": [False]})
    part = score(table(), drift=Drift("before against after", rows, splits=True))["drift"]
    assert part.score is None and part.verdict == "not examined" and "no column could be tested" in part.why


def timed(days) -> tuple[pd.DataFrame, Meta]:
    df = pd.DataFrame({"time": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(days, unit="D"), "f0": 1.0})
    return df, Meta(
        "t",
        "A",
        "sample instant",
        "real",
        (Column("time", "time"), Column("f0", "channel")),
        "",
        "",
        {},
        period_s=86400.0,
    )


def test_timeliness_asks_the_data_and_not_the_wall_clock():
    def at(days, **more):
        return readiness(*timed(days), [], drift=None, labels=None, leakage=None, **more)["timeliness"]

    assert at([0, 1, 2]).why == "the contract asks for no freshness, as for an archive"
    assert at(range(11), fresh_days=1).score == 1
    assert at([0, 1, 10], fresh_days=1).score == pytest.approx(0.2)  # eight of ten days the newest was too old
    assert at([10, 0, 1], fresh_days=1).score == pytest.approx(0.2)  # the order of rows does not matter
    assert at(range(11), fresh_days=1, as_of="2024-01-12").score == 1
    late = at(range(11), fresh_days=1, as_of="2024-01-15")
    assert late.score == pytest.approx(0.25) and "On 2024-01-15 it is 4.0 days old" in late.evidence
    assert at(range(11), fresh_days=1, as_of=pd.Timestamp("2024-01-15 02:00", tz="+02:00")).score == pytest.approx(0.25)
    assert at([3], fresh_days=1).score is None
    with pytest.raises(ValueError, match="as_of is 2024-01-02, before the last sample of 2024-01-11"):
        at(range(11), fresh_days=1, as_of="2024-01-02")


def test_the_score_is_cut_and_not_rounded():
    assert score(table(), labels=replace(RIGHT, issues=1)).score == 99


def test_questions_without_sense_are_not_asked():
    asked = documented(META, "me").set_index("question")["answered"]
    assert np.isnan(asked["How often is it sampled?"]) and asked.drop("How often is it sampled?").eq(1).all()
    blank = documented(Meta("t", " ", "thing", "real", (Column("x", "channel"),), "", "", {}))
    assert blank["answered"].dropna().eq(0).all() and blank["answered"].notna().sum() == 8


def test_evidence_holds_the_counts():
    found = score(copied(table(), 0.5), labels=replace(RIGHT, issues=8))
    assert "50 of 100 test rows" in found["leakage"].evidence and found["leakage"].figures["compromised"] == 50
    assert "8 of 400 labels" in found["labels"].evidence and "1,600 of 1,600" in found["completeness"].evidence


def test_the_findings_of_a_contract_fit():
    found = [
        Finding("in_range", "features", "f0", 3, 400, "3 of 400 values are above 9."),
        Finding("unit", "table", "f1", 0, 1, ""),
    ]
    got = score(table(), findings=found)
    assert got["validity"].broken == ("in_range",) and got.verdict == NOT_READY and got["consistency"].score == 1


def test_opssat_is_ready_with_one_reservation(require):
    file = MIRROR / "opssat-ad" / "dataset.csv"
    require("mirror", file.is_file(), "ESA_DATA_MIRROR has no opssat-ad/dataset.csv")
    df, meta = opssat.read(file)
    found = score(df, meta)
    assert found.verdict == RESERVED and "lie between two training rows" in found.answer and found.score >= 97
