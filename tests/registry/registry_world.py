"""A small registry in a temporary folder: MLflow on SQLite, throw-away keys, tiny detectors, decisions and bundles."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esa_notebooks.files import sha256
from esa_notebooks.gate.approval import approve, ask
from esa_notebooks.gate.people import Approver, Owner, People
from esa_notebooks.gate.signing import public_bytes, public_text
from esa_notebooks.registry import evidence
from esa_notebooks.registry.promotion import Registry
from esa_notebooks.registry.store import Store
from esa_notebooks.runs.record import canonical

NAME = "thermal-anomalies"
README = hashlib.sha256(b"evidence\n").hexdigest()   # a file of every bundle here: what a decision compares with
AUTHOR, ADA, BEN, OLD, OWNER = (f"{who}@example.org" for who in ("author", "ada", "ben", "old", "owner"))
T0 = datetime(2026, 3, 1, 8, tzinfo=UTC)
TAGS = {
    "kind": "detector",
    "owner": "flight-dynamics-data",
    "domain": "operational",
    "data_class": "internal",
    "risk_class": "limited",
    "trl": "4",
    "kpi": "AUC-PR of at least 0.9",
    "review": "2027-05-25",
}
LEFT = ("ESA_RUN_PUBLISHES", "ESA_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def key_of(seed: int):
    return Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))


def people_of(until: date = date(2027, 12, 31)) -> People:
    def person(email: str, seed: int, last: date, *domains: str) -> Approver:
        return Approver(email, email, public_bytes(key_of(seed)), ("service owner",), domains, last)

    return People(
        (Owner("flight-dynamics-data", "Flight dynamics", OWNER), Owner("data-ai-unit", "Unit", "unit@example.org")),
        (
            person(ADA, 1, until, "operational"),
            person(BEN, 2, until, "operational"),
            person(OLD, 3, date(2026, 1, 31), "operational"),
            person(AUTHOR, 4, until, "operational"),
            person("desk@example.org", 5, until, "business"),
        ),
        (),
        "0" * 64,
    )


def decision_about(sha256: str, replaces: str | None = None, verdict: str = "passed", name: str = NAME, **more) -> dict:
    """A decision as gate.decision writes it, with one row."""
    against = {"kind": "champion", "name": name, "sha256": README, "version": replaces} if replaces else None
    row = {"check": "comparison", "status": "passed" if verdict == "passed" else "failed", "value": 0.03}
    subject = {"name": name, "kind": "detector", "domain": "operational", "detector": "LR", "sha256": sha256}
    rest = {
        "schema": "esa-notebooks/decision/1",
        "subject": {**subject, "run_id": "20260301-080000-abcd"},
        "against": against,
        "policy": {"path": "gate.yaml", "sha256": "2" * 64, "kind": "detector"},
        "verdict": verdict,
        "rows": [row],
        "reasons": [] if verdict == "passed" else ["“Comparison”: no better than the champion."],
        "findings": {},
        **more,
    }
    return {**rest, "at": "2026-03-01T08:00:00Z", "digest": canonical(rest)}


def table(n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng, y = np.random.default_rng(0), (np.arange(n) % 5 == 0).astype(int)
    return pd.DataFrame({"height": rng.normal(2.0 * y), "width": rng.normal(size=n), "channel": "A"}), y


def readings(seed: int = 0, rows: int = 150) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of a number, a count and a channel, which a forest learns in a moment, and whether each is an anomaly."""
    rng = np.random.default_rng(seed)
    channel = np.where(np.arange(rows) % 2, "A", "B")
    X = pd.DataFrame({"height": rng.normal(size=rows), "peaks": rng.integers(0, 9, rows), "channel": channel})
    return X, (X.height + rng.normal(0, 1, rows) > 1).astype(int).to_numpy()


@dataclass
class World:
    """One registry, and what is needed to promote into it."""

    folder: Path
    uri: str
    detectors: Path

    def registry(self, people: People | None = None) -> Registry:
        return Registry(Store(self.uri), self.folder / "registry", people or people_of())

    def detector(self, n: int) -> Path:
        return self.detectors / f"{n}.zip"

    def evidence(self, registry: Registry, n: int = 1, replaces: str | None = None, authors=(AUTHOR,), **more):
        """(decision, address of the bundle) for detector `n`."""
        key = evidence.builder_key(registry.folder)
        registry.enrol(public_text(key), AUTHOR, T0)
        document = decision_about(sha256(self.detector(n)), replaces, **more)
        said = {"name": NAME, "kind": "detector", "decision": document, "authors": list(authors), "at": document["at"]}
        files = {"model/detector.zip": self.detector(n), "README.md": b"evidence\n"}
        return document, evidence.build(registry.folder / "bundles", files, {**said, "runs": []}, key).address

    def challenge(self, registry: Registry, n: int = 1, replaces: str | None = None, at=T0, **more) -> str:
        document, bundle = ("", "") if "decision" in more else self.evidence(registry, n, replaces)
        given = {"name": NAME, "file": self.detector(n), "example": table()[0][:3], "requirements": ["numpy"]}
        given |= {"tags": TAGS, "decision": document, "bundle": bundle, "by": AUTHOR, "at": at, **more}
        return registry.challenge(**given)

    def signed(
        self, registry: Registry, version: str, seed: int = 1, days: int = 180, at=T0, authors=(AUTHOR,), **more
    ):
        """The approval of the challenger, by the person with the key `seed`."""
        own = [e for e in registry.entries() if e.event == "challenger" and e.version == version][-1]
        document = json.loads((registry.folder / "decisions" / f"{own.decision}.json").read_text())
        request = ask(document, version=version, bundle=own.bundle, lasts_days=days)
        people = more.get("people", registry.people)
        return approve(request, key_of(seed), people, decision=document, authors=authors, at=at, comment="read it all")

    def promote(self, registry: Registry, n: int = 1, replaces: str | None = None, at=T0, **more) -> str:
        version = self.challenge(registry, n, replaces, at)
        return registry.approve(NAME, self.signed(registry, version, at=at, **more), at + timedelta(hours=1))
