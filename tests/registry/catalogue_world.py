"""An agency made up for tests and benchmarks: declarations, a journal, bundles, alarms and runs."""

import itertools
import json
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import yaml

from esa_notebooks.registry.journal import NOTHING, Entry, stamp
from esa_notebooks.runs.record import canonical

AT = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
WHO = "engineering.approver@example.org"
PEOPLE = """schema: esa-notebooks/people/1
owners:
  - {id: data-ai-unit, title: Data & AI unit, contact: data-ai-unit@example.org}
  - {id: flight-dynamics, title: Flight dynamics, contact: flight-dynamics@example.org}
  - {id: procurement, title: Procurement, contact: procurement@example.org}
approvers:
  - {name: Ada Example, email: ada@example.org, key: /y4XcirDh2fyJN+bmLuw7EiAsCJO+43ZLxCyjEhoT8I=,
     roles: [service owner], domains: [operational, technical], until: 2027-12-31}
  - {name: Grace Example, email: grace@example.org, key: Ny5HeYynPMAav5acZ4huUL5MprlG0mkTh5o8LIVFB2E=,
     roles: [reviewer], domains: [business, management], until: 2027-12-31}
"""

# name, title, kind, domain, owner, risk, life, data set. A life is what the journal tells, in order.
MODELS = [
    (
        "opssat-anomalies",
        "Anomalous segments of OPS-SAT telemetry",
        "detector",
        "operational",
        "flight-dynamics",
        "limited",
        "challenger champion challenger champion challenger",
        "opssat",
    ),
    (
        "shuttle-states",
        "Unusual states in Space Shuttle readings",
        "detector",
        "technical",
        "data-ai-unit",
        "minimal",
        "challenger champion",
        "shuttle",
    ),
    (
        "bid-summaries",
        "Summaries of tenders for the evaluation board",
        "llm",
        "business",
        "procurement",
        "high",
        "challenger",
        "tenders",
    ),
    (
        "mission-questions",
        "Answers to questions on mission documents",
        "llm",
        "management",
        "data-ai-unit",
        "limited",
        "refused refused",
        "mission-documents",
    ),
    (
        "triage-prompt",
        "Prompt that sorts anomaly reports by urgency",
        "prompt",
        "operational",
        "flight-dynamics",
        "high",
        "challenger champion rolled_back",
        "anomaly-reports",
    ),
    (
        "launch-delay",
        "Chance that a launch moves by more than a day",
        "detector",
        "management",
        "data-ai-unit",
        "minimal",
        "challenger champion retired",
        "launches",
    ),
    (
        "thermal-watch",
        "Drift of thermal sensors on the bus",
        "detector",
        "operational",
        "flight-dynamics",
        "limited",
        "challenger champion",
        "telemetry",
    ),
    (
        "star-tracker",
        "Blinding of star trackers, an hour ahead",
        "detector",
        "technical",
        "flight-dynamics",
        "limited",
        "",
        "telemetry",
    ),
    (
        "invoice-words",
        "Classes of invoices for the archive",
        "llm",
        "business",
        "procurement",
        "minimal",
        "",
        "invoices",
    ),
]
TITLE, FIGURES = "A model made up for a test", ("auc_pr", "f1")
YEAR = timedelta(days=365)


def declaration(name, title, kind, domain, owner, risk, data, review: date) -> str:
    """The declaration of a model as YAML."""
    told = {
        "name": name,
        "kind": kind,
        "title": title,
        "domain": domain,
        "owner": owner,
        "risk_class": risk,
        "purpose": f"{title}, so that the people on shift look first at what matters most. It reads, it never acts.",
        "out_of_scope": ["Commanding, or any action that no person has looked at", "Data of another mission"],
        "data_class": "internal",
        "trl": 4,
        "kpi": "AUC-PR of at least 0.90 on held-out rows",
        "review": review.isoformat(),
        "consumers": [
            {"name": f"Shift log of {owner}", "kind": "people", "contact": f"{owner}@example.org"},
            {"name": "Weekly digest", "kind": "report", "contact": "digest@example.org"},
        ],
        "data": [data],
        "rollback": "To the previous champion; before there was one, out of service.",
        "lasts_days": 365,
        "monitoring": {
            "every_days": 7,
            "channels": ["CADC0872", "CADC0874"],
            "false_alarms_per_month": 1,
            "alarms_to": "duty@example.org",
            "retrain": f"esa-notebooks run contender/{name} --force",
        },
        "limits": ["All labels come from one mission."],
        "human_oversight": "The shift lead reads every segment it marks.",
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True)


def journal(path: Path, told: list[dict]) -> None:
    """Write the events in `told` as a journal whose chain is whole."""
    before, lines = NOTHING, []
    for n, one in enumerate([{"event": "began", "at": AT - YEAR, "by": "system"}, *told], 1):
        entry = Entry(**{**one, "n": n, "at": stamp(one["at"]), "before": before})
        entry = Entry(**{**asdict(entry), "hash": entry.computed()})
        before = entry.hash
        lines.append(json.dumps(asdict(entry)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def record(run_id, stage, inputs, outputs, results=(), **parameters):
    """A run record as far as the catalogue reads one."""
    return {
        "schema": "esa-notebooks/record/1",
        "run_id": run_id,
        "stage": stage,
        "status": "succeeded",
        "notebook": {"path": f"nbs/pipeline/{stage}.ipynb"},
        "inputs": inputs,
        "outputs": outputs,
        "declarations": list(results),
        "interactive": False,
        "started": "2026-11-01T10:00:00+00:00",
        "ended": "2026-11-01T10:01:00+00:00",
        "parameters": [
            {"name": n, "value": v, "type": "DataSource" if n == "dataset" else "str", "origin": "given"}
            for n, v in parameters.items()
        ],
    }


def runs_of(name: str, data: str, version: int) -> list[dict]:
    """The runs behind a version: one prepares the data, one trains and measures."""
    raw = {
        "name": "dataset",
        "kind": "source",
        "path": f"data/raw/{data}/{data}.csv",
        "sha256": canonical([data]),
        "made_by": None,
    }
    contract = {
        "name": "contract",
        "kind": "file",
        "path": f"data/contracts/{data}.yaml",
        "sha256": canonical([data, 1]),
        "made_by": None,
    }
    table = {"name": "prepared", "path": f"data/processed/{data}.parquet", "sha256": canonical([data, 2])}
    first, second = (
        f"20261101T080000Z-{canonical([data])[:8]}",
        f"2026110{1 + version}T100000Z-{canonical([name, version])[:8]}",
    )
    model = {"name": "model", "path": f"data/interim/models/{name}.zip", "sha256": canonical([name, version])}
    value = 0.9 + 0.012 * version + int(canonical([name])[:2], 16) / 1e4
    results = [
        {
            "kind": "result",
            "name": "auc_pr",
            "label": "AUC-PR",
            "value": value,
            "ci": [value - 0.021, value + 0.017],
            "better": "higher",
        },
        {
            "kind": "result",
            "name": "f1",
            "label": "F1",
            "value": value - 0.06,
            "ci": [value - 0.09, value - 0.03],
            "better": "higher",
        },
        {"kind": "result", "name": "rows", "value": 529},
    ]
    return [
        record(first, "prepare", [raw, contract], [table], dataset=data),
        record(
            second,
            "experiment",
            [{**table, "made_by": first}],
            [model],
            results,
            detector="champion.Champion",
            name=name,
        ),
    ]


def decision(name: str, version: int, run: dict, verdict: str, at: datetime) -> dict:
    """A decision document of the gate."""
    failed = verdict == "refused"
    rows = [
        {
            "check": "contract",
            "title": "The data keep their contract",
            "status": "passed",
            "value": 0,
            "bound": "at most 0 broken rules",
            "said": "No rule of the contract is broken.",
            "source": "data/contracts#rules",
            "reason": "A broken contract voids every figure.",
        },
        {
            "check": "comparison",
            "title": "Better than what it would replace",
            "status": "failed" if failed else "passed",
            "value": {
                "difference": -0.012 if failed else 0.014,
                "low": -0.03 if failed else 0.004,
                "high": 0.006 if failed else 0.025,
            },
            "bound": "low above 0",
            "said": f"AUC-PR differs by {'−0.012 (−0.030 to 0.006)' if failed else '0.014 (0.004 to 0.025)'}.",
            "source": "scores",
            "reason": "A change that cannot be told from chance is not worth a change.",
        },
        {
            "check": "formats",
            "title": "No pickle",
            "status": "passed",
            "value": [],
            "bound": "none refused",
            "said": "Three files, none refused.",
            "source": "model.zip",
            "reason": "A pickle runs code when it is opened.",
        },
        {
            "check": "approval",
            "title": "A person agrees",
            "status": "awaiting",
            "value": None,
            "bound": "one listed approver",
            "said": "Nobody has approved it yet.",
            "source": "governance/approvers.yaml",
            "reason": "A person answers for it.",
        },
    ]
    against = {"kind": "champion", "name": name, "sha256": canonical([name, version - 1]), "version": str(version - 1)}
    told = {
        "schema": "esa-notebooks/decision/1",
        "policy": {"path": "governance/gate.yaml", "sha256": "0" * 64, "kind": "detector"},
        "subject": {
            "name": name,
            "kind": "detector",
            "detector": "champion.Champion",
            "sha256": canonical([name, version]),
            "run_id": run["run_id"],
        },
        "against": against
        if version > 1
        else {"kind": "baseline", "name": "linear.LR", "sha256": "1" * 64, "version": None},
        "verdict": verdict,
        "rows": rows,
        "reasons": ["AUC-PR is not above the champion's: the interval of the difference holds 0."] if failed else [],
    }
    return {**told, "digest": canonical(told), "at": stamp(at)}


class World:
    """Files of a made-up agency below `folder`: governance/, registry/ and reports/."""

    def __init__(self, folder: Path):
        self.folder, self.told = Path(folder), []
        self.models, self.registry = self.folder / "governance/models", self.folder / "registry"
        self.journal, self.people, self.reports = (
            self.registry / "journal.jsonl",
            self.folder / "governance/approvers.yaml",
            self.folder / "reports",
        )
        self.models.mkdir(parents=True, exist_ok=True)
        (self.registry / "decisions").mkdir(parents=True, exist_ok=True)
        (self.registry / "alarms").mkdir(parents=True, exist_ok=True)
        self.people.write_text(PEOPLE)

    def live(self, name: str, data: str, life: str, start: datetime) -> None:
        """Let a model go through its `life`, with bundles, decisions and entries of the journal."""
        version, before, held = 0, None, {}
        for day, event in enumerate(life.split()):
            at = start + timedelta(days=day)
            more = {
                "event": event,
                "at": at,
                "model": name,
                "by": WHO if event == "champion" else "data-ai-unit@example.org",
            }
            if event in ("challenger", "refused"):
                runs = runs_of(name, data, version + 1)
                document = decision(name, version + 1, runs[-1], "passed" if event == "challenger" else "refused", at)
                held = {"decision": document["digest"]}
                if event == "challenger":
                    version += 1
                    held["bundle"] = self.bundle(document, runs)
                    more["version"] = str(version)
                else:
                    more["reason"] = document["reasons"][0]
                    (self.registry / "decisions" / f"{document['digest']}.json").write_text(json.dumps(document))
                more |= held
            elif event == "champion":
                more |= {"version": str(version), "previous": before, "approval": "c" * 64, **held}
                before = str(version)
            elif event == "rolled_back":
                more |= {"version": None, "previous": before, "reason": "it put two urgent reports last"}
            elif event == "retired":
                more |= {"version": str(version), "reason": "the schedule it learned from is no longer kept"}
            self.told.append(more)

    def bundle(self, document: dict, runs: list[dict]) -> str:
        """A bundle with the parts that the catalogue reads; its address."""
        address = canonical([document["digest"]])
        place = self.registry / "bundles" / address
        (place / "decision").mkdir(parents=True, exist_ok=True)
        (place / "decision/decision.json").write_text(json.dumps(document))
        for run in runs:
            self.record(run, place / "runs")
        return address

    @staticmethod
    def record(run: dict, below: Path, page: bool = False) -> None:
        """The record of a run, in its folder below `below`."""
        folder = below / run["stage"] / run["run_id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").write_text(json.dumps(run))
        if page:
            (folder / "report.html").write_text("<title>A report</title>")

    def alarm(self, id: str, model: str, **more) -> None:
        """An alarm record."""
        told = {
            "schema": "esa-notebooks/alarm/1",
            "id": id,
            "model": model,
            "version": "1",
            "opened": "2026-11-24T06:00:00Z",
            "closed": None,
            "kind": "drift",
            "channels": ["CADC0872"],
            "said": "CADC0872 has moved by 0.8 of its spread.",
            "severity": "warning",
            "evidence": {"run_id": "", "report": "", "figure": ""},
            "retrain": f"esa-notebooks run contender/{model} --force",
            **more,
        }
        (self.registry / "alarms" / f"{id}.json").write_text(json.dumps(told))

    def done(self) -> "World":
        """Write the journal."""
        journal(self.journal, sorted(self.told, key=lambda t: t["at"]))
        return self

    def gathered(self, **more):
        """What the catalogue gathers from this world."""
        from esa_notebooks.registry.catalogue_sources import gather

        return gather(
            sorted(self.models.glob("*.yaml")), self.journal, people=self.people, **{"reports": self.reports, **more}
        )


def world(folder: Path, models: int = len(MODELS)) -> World:
    """A world with `models` models, of which the first are those of MODELS and the rest vary them."""
    made = World(folder)
    for n, (name, title, kind, domain, owner, risk, life, data) in zip(range(models), itertools.cycle(MODELS)):
        again, review = n // len(MODELS), AT.date() + timedelta(days=30 + 37 * (n % 11) - 200 * (n % 7 == 3))
        name, title = (f"{name}-{again}", f"{title}, variant {again}") if again else (name, title)
        data = f"{data}-{again % 10}" if again else data
        (made.models / f"{name}.yaml").write_text(declaration(name, title, kind, domain, owner, risk, data, review))
        made.live(name, data, life, AT - timedelta(days=20 + n % 9))
    made.alarm("a-thermal", "thermal-watch")
    return made.done()


def showcase(folder: Path) -> World:
    """The world to look at: as above, with a model that nobody declared, a declaration with a fault, and a watch."""
    made = World(folder)
    made.live("night-reader", "telemetry", "challenger champion", AT - timedelta(days=3))
    (made.models / "orbit-words.yaml").write_text("name: orbit-words\nkind: lllm\ntitle: Words for orbits\n")
    told = made.told
    made = world(folder)
    made.told += told
    made.alarm("a-closed", "opssat-anomalies", closed="2026-11-20T06:00:00Z")
    for run in runs_of("opssat-anomalies", "opssat", 2):
        made.record(run, made.reports / "runs", page=True)
    watch = record(
        "20261123T060000Z-aaaaaaaa", "monitor", [], [], declaration="governance/models/opssat-anomalies.yaml"
    )
    made.record({**watch, "ended": "2026-11-23T06:01:00+00:00"}, made.reports / "runs", page=True)
    return made.done()
