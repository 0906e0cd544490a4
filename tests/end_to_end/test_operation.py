"""From an experiment to operation and back, with the command line, in a copy of the project: who is let through, who is not.

A baseline, a first champion, a worse challenger, a better one, and the way back. The keys are made for the test.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from esa_notebooks.files import sha256
from esa_notebooks.gate.signing import new_key, public_text
from esa_notebooks.registry.journal import in_production, read, timeline
from tests.conftest import require

from .conftest import ROOT, copy_project, tool

ADA, AUTHOR, ASKER = "ada@example.org", "author@example.org", "asker@example.org"
BETTER = "“Better than what it replaces”"
FAMILIES = "esa_notebooks.models.detectors"
DETECTORS = {"baseline": "projection.PCA", "first": "linear.LR", "better": "trees.ExtraTrees"}
MODELS = {
    "opssat-anomalies": ("opssat", "official", DETECTORS | {"worse": "neighbours.KNN"}),
    "shuttle-anomalies": ("shuttle", "random", DETECTORS | {"worse": "projection.PCA"}),
}


def workflow(table: str, protocol: str, detectors: dict[str, str]) -> str:
    """The experiments of the story as a workflow: one seed each, and folds for the calibration."""
    prepared, contract = f"data/processed/{table}.parquet", f"data/contracts/{table}.yaml"
    quality = {"prepared": prepared, "contract": contract, "card": f"data/processed/{table}.croissant.json"}
    experiment = {"prepared": prepared, "detector": FAMILIES + ".{detector}", "protocol": protocol, "seeds": [2137],
                  "folds": 5, "scores": "data/interim/scores/{detector}.parquet",
                  "model": "data/interim/models/{detector}.zip"}  # fmt: skip
    stages = {
        "prepare": {"parameters": {"dataset": table, "prepared": prepared, "contract": contract}},
        "quality": {"parameters": quality},
        "experiment": {"for": {"detector": sorted({*detectors.values()})}, "parameters": experiment,
                       "databases": ["tracking"]},
    }  # fmt: skip
    return yaml.safe_dump({"stages": {n: {"notebook": f"nbs/pipeline/{n}.ipynb"} | s for n, s in stages.items()}})


class Story:
    """A project in which the model `name` goes its way, each step of it done when it is first asked for."""

    def __init__(self, folder: Path, name: str):
        self.name, (table, protocol, self.detectors) = name, MODELS[name]
        self.project = copy_project(folder / "project")
        shutil.copytree(ROOT / "governance", self.project / "governance")
        self.keys = {email: folder / f"{email}.key" for email in (ADA, AUTHOR, ASKER, "stranger@example.org")}
        public = {email: public_text(new_key(file, self.project)) for email, file in self.keys.items()}
        listed = self.project / "governance" / "approvers.yaml"
        approvers = [{"name": e, "email": e, "key": public[e], "roles": ["service owner"],
                      "domains": ["technical", "operational"], "until": "2037-12-31"}
                     for e in (ADA, AUTHOR, ASKER)]  # fmt: skip
        listed.write_text(json.dumps(yaml.safe_load(listed.read_text()) | {"approvers": approvers}, default=str))
        (self.project / "workflow" / "story.yaml").write_text(workflow(table, protocol, self.detectors))
        (self.project / ".gitignore").write_text("data/interim\ndata/processed\ndata/raw\nreports\nregistry\nml*\n")
        own = ("-c", f"user.email={AUTHOR}", "-c", "user.name=Author")
        for words in (("init", "-q"), ("add", "-A"), (*own, "commit", "-qm", "The project as it is")):
            subprocess.run(["git", *words], cwd=self.project, check=True)

    def tool(self, *words: str, by: str = ASKER, timeout: int = 1200) -> SimpleNamespace:
        return tool(self.project, *words, timeout=timeout, ESA_REGISTRY_IDENTITY=by)

    def promote(self, role: str, **more: str) -> SimpleNamespace:
        """The detector in this `role` asks to be promoted."""
        detector = self.detectors[role]
        given = {"model": f"data/interim/models/{detector}.zip", "scores": f"data/interim/scores/{detector}.parquet"}
        return self.tool("promote", self.name, *(w for n, v in (given | more).items() for w in ("-p", f"{n}={v}")))

    def approve(self, email: str) -> SimpleNamespace:
        return self.tool("approve", self.name, "--key", str(self.keys[email]), "--comment", "Read it.", by=email)

    @property
    def entries(self) -> list:
        return read(self.project / "registry" / "journal.jsonl")

    @property
    def in_production(self) -> str | None:
        """By the journal; MLflow must say the same, and knows no alias beside these."""
        with closing(sqlite3.connect(self.project / "mlflow.db")) as db:
            aliases = dict(db.execute("select alias, version from registered_model_aliases where name = ?", [self.name]))
        version = in_production(self.entries, self.name)
        assert str(aliases.get("champion", "")) == (version or ""), (aliases, version)
        return version

    @property
    def decision(self) -> dict:
        return json.loads((self.project / f"data/interim/decisions/{self.name}.json").read_text())

    def bundle(self, version: str) -> Path:
        (address,) = {e.bundle for e in self.entries if (e.model, e.version) == (self.name, version) and e.bundle}
        return self.project / "registry" / "bundles" / address

    # The steps.

    @cached_property
    def scored(self) -> SimpleNamespace:
        ended = self.tool("run", "--workflow", "workflow/story.yaml")
        assert ended.code == 0, ended.err
        return ended

    @cached_property
    def first(self) -> SimpleNamespace:
        assert self.scored.code == 0
        asked = self.promote("first", against=f"data/interim/scores/{self.detectors['baseline']}.parquet")
        return SimpleNamespace(asked=asked, status=self.tool("registry", "status"),
                               refused={e: self.approve(e) for e in self.keys if e != ADA},
                               approved=self.approve(ADA), now=self.in_production)  # fmt: skip

    @cached_property
    def worse(self) -> SimpleNamespace:
        assert self.first.now == "1"
        asked = self.promote("worse", again="false")
        return SimpleNamespace(asked=asked, decision=self.decision, now=self.in_production)

    @cached_property
    def better(self) -> SimpleNamespace:
        assert self.worse.now == "1"
        asked, decision = self.promote("better"), self.decision
        with damaged(self.bundle("2") / "card" / "model_card.md"):
            verified, refused = self.tool("verify", self.bundle("2").name[:12]), self.approve(ADA)
        return SimpleNamespace(asked=asked, decision=decision, verified=verified, refused=refused,
                               approved=self.approve(ADA), now=self.in_production)  # fmt: skip

    @cached_property
    def back(self) -> SimpleNamespace:
        assert self.better.now == "2"
        began = time.monotonic()
        ended = self.tool("rollback", self.name, "--reason", "false alarms at night", by=ADA)
        return SimpleNamespace(ended=ended, seconds=time.monotonic() - began, now=self.in_production)


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """One bit of the file is another, for a while."""
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        yield
    finally:
        file.write_bytes(whole)


@pytest.fixture(scope="module", params=["opssat-anomalies", pytest.param("shuttle-anomalies", marks=pytest.mark.slow)])
def story(request, tmp_path_factory) -> Story:
    require("mirror", bool(os.environ.get("ESA_DATA_MIRROR")), "ESA_DATA_MIRROR is not set")
    return Story(tmp_path_factory.mktemp("operation"), request.param)


pytestmark = pytest.mark.timeout(1500)   # a step is minutes where others are at work, too


def test_what_is_not_there_is_named_with_the_command_that_makes_it(story):
    ended = story.tool("promote", story.name)
    assert ended.code == 2 and "Not here: data/processed/" in ended.err
    assert "`esa-notebooks run prepare/" in ended.err and "quality/" in ended.err
    ended = story.tool("promote", story.name.replace("-", "_"))
    assert ended.code == 2 and f"Did you mean `{story.name}`" in ended.err
    assert not (story.project / "registry").exists() and not (story.project / "mlflow.db").exists()


def test_a_first_model_goes_into_production_by_the_hand_of_another(story):
    told = story.first
    assert told.asked.code == 0, told.asked.out + told.asked.err
    assert "checks hold" in told.asked.out and "Version 1 is the challenger." in told.asked.out
    may = told.asked.out.partition("Version 1 is the challenger.")[2]
    assert ADA in may and f"esa-notebooks approve {story.name}@challenger" in may
    assert AUTHOR not in may and ASKER not in may, "who committed the code or asked is not asked"
    assert "champion -" in told.status.out and "challenger 1" in told.status.out
    for email, said in ((AUTHOR, "approves their own work"), (ASKER, "approves their own work"),
                        ("stranger@example.org", "is no approver's")):  # fmt: skip
        assert told.refused[email].code == 1 and said in told.refused[email].err, told.refused[email]
    assert told.approved.code == 0, told.approved.err
    assert f"Version 1 of {story.name} is in production." in told.approved.out and told.now == "1"


def test_a_worse_challenger_is_refused_with_the_reason(story):
    told, rows = story.worse, {row["check"]: row for row in story.worse.decision["rows"]}
    assert told.asked.code == 1 and told.asked.err.strip().splitlines()[-1].startswith(f"{story.name} is refused: ")
    assert BETTER in told.asked.err and rows["comparison"]["status"] == "failed"
    assert rows["comparison"]["why"] in told.asked.err
    assert rows["reexecution"]["status"] == "missing", "nobody skips it with a parameter"
    against = told.decision["against"]
    assert (against["kind"], against["version"]) == ("champion", "1")
    assert against["sha256"] == sha256(story.bundle("1") / "model" / "scores.parquet"), "what the champion was signed with"
    refusal = [e for e in story.entries if e.event == "refused" and not e.version][-1]
    kept = json.loads((story.project / "registry" / "decisions" / f"{refusal.decision}.json").read_text())
    assert kept["verdict"] == "refused" and BETTER in refusal.reason and told.now == "1"
    assert kept["subject"]["sha256"] == sha256(story.project / f"data/interim/models/{story.detectors['worse']}.zip")


def test_a_better_one_takes_its_place(story):
    told = story.better
    assert told.asked.code == 0, told.asked.out + told.asked.err
    against, found = told.decision["against"], told.decision["findings"]["comparison"]
    assert (against["kind"], against["version"]) == ("champion", "1") and found["low"] > 0
    assert told.decision["findings"]["rollback"]["target"] == "version 1"
    assert told.approved.code == 0 and "in place of version 1" in told.approved.out and told.now == "2"


def test_evidence_that_was_changed_is_not_approved(story):
    told = story.better
    for ended in (told.verified, told.refused):
        assert ended.code == 1 and "card/model_card.md" in ended.out + ended.err, ended
    ended = story.tool("verify", str(story.bundle("2")))
    assert ended.code == 0 and "intact" in ended.out


def test_back_in_one_command(story):
    told = story.back
    assert told.ended.code == 0 and f"Version 1 of {story.name} is in production again." in told.ended.out
    print(f"rollback of {story.name}: {told.seconds:.1f} s")
    assert told.now == "1" and told.seconds < 30


def test_journal_mlflow_and_evidence_agree(story):
    assert story.back.now == "1"
    ended = story.tool("journal", "--check")
    assert (ended.code, ended.out) == (0, "Journal, model registry and evidence agree.\n"), ended
    assert list(timeline(story.entries, story.name).version) == ["1", "2", "1"]
    status = story.tool("registry", "status")
    assert status.code == 0 and "champion 1" in status.out and "challenger -" in status.out


def test_a_champion_whose_evidence_was_changed_serves_nobody(story):
    assert story.back.now == "1"
    with damaged(story.bundle("1") / "model" / "scores.parquet"):
        for words in (("serve", story.name), ("promote", story.name), ("journal", "--check"),
                      ("verify", story.bundle("1").name)):  # fmt: skip
            ended = story.tool(*words, timeout=120)
            assert ended.code == 1 and "model/scores.parquet" in ended.out + ended.err, (words, ended)


def test_the_catalogue_shows_the_model_and_its_history(story):
    assert story.back.now == "1"
    built, shown = story.tool("catalogue", "build", "--audit"), story.tool("catalogue", "show", story.name)
    assert built.code == 0 and Path(built.out.splitlines()[0]).is_file(), built
    about = json.loads(story.tool("catalogue", "show", story.name, "--json").out)
    assert {v["version"]: v["state"] for v in about["versions"]}["1"] == "production"
    told = yaml.safe_load((story.project / "governance" / "models" / f"{story.name}.yaml").read_text())
    assert shown.code == 0 and told["title"] in shown.out and "version 1:" in shown.out and "version 2:" in shown.out
    assert shown.out.count("AUC-PR") >= 2, "a figure for each version"


def test_an_alarm_is_opened_once_shown_and_closed(story):
    assert story.back.now == "1"
    name, detector = f"{MODELS[story.name][0]}.parquet", story.detectors["first"]
    altered, read_table = f"data/interim/moved/{name}", pq.read_table(story.project / "data/processed" / name)
    (story.project / altered).parent.mkdir()
    df = read_table.to_pandas()
    columns = [f.name for f in read_table.schema if pa.types.is_floating(f.type)]
    df.loc[df["split"] == "test", columns] += 2 * df[columns].std()   # every sensor has moved
    pq.write_table(pa.Table.from_pandas(df, schema=read_table.schema, preserve_index=False), story.project / altered)
    watch = ("execute", "nbs/pipeline/monitor.ipynb", "-p", f"prepared={altered}",
             "-p", f"model=data/interim/models/{detector}.zip", "-p", f"scores=data/interim/scores/{detector}.parquet",
             "-p", f"declaration=governance/models/{story.name}.yaml", "-p", "alarms=data/interim/alarms.json")
    for _ in range(2):   # the second look finds the same, and opens nothing new
        ended = story.tool(*watch)
        assert ended.code == 0, ended.err
    opened = [e for e in story.entries if e.event == "alarm"]
    assert opened and {(e.model, e.version) for e in opened} == {(story.name, "1")}
    kinds = {json.loads(p.read_text())["kind"] for p in (story.project / "registry" / "alarms").glob("*.json")}
    assert len(opened) == len(kinds) and "drift" in kinds
    told, about = story.tool("registry", "alarms"), story.tool("catalogue", "show", story.name)
    assert told.out.count("to retrain: esa-notebooks run ") == len(opened) and "alarm" in about.out.lower()
    ident = opened[0].details["alarm"]
    assert story.tool("registry", "alarms", "--close", ident).code == 2, "not without a reason"
    closed = story.tool("registry", "alarms", "--close", ident, "--reason", "The sensors were recalibrated.", by=ADA)
    assert closed.code == 0 and ident not in story.tool("registry", "alarms").out
    assert [e.by for e in story.entries if e.event == "alarm_closed"] == [ADA]
