"""From two real runs of a small study to a bundle: whole, the same twice, checked by strangers' tools, refused when it does not fit."""
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esa_notebooks.files import sha256
from esa_notebooks.gate.decision import decide
from esa_notebooks.gate.evidence import Finding
from esa_notebooks.gate.policy import read_policy
from esa_notebooks.gate.signing import key_id, public_bytes, public_text
from esa_notebooks.registry import matrix
from esa_notebooks.registry.bom import check_bom
from esa_notebooks.registry.contents import ContentsError, Material, contents, predicate, readers, upstream
from esa_notebooks.registry.declaration import read
from esa_notebooks.registry.evidence import build, verify_bundle
from esa_notebooks.runs.shelf import Shelf
from tests.runs.conftest import Study

ROOT = Path(__file__).resolve().parents[2]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
AT = datetime(2026, 11, 25, 8, tzinfo=timezone.utc)
PREPARE = ("import numpy as np, pandas as pd\nrng = np.random.default_rng(0)\n"
           "df = pd.DataFrame(rng.normal(size=(60, 3)), columns=list('abc'))\n"
           "df['y'] = (df.a + rng.normal(size=60) > 1).astype(int)\nPath(made).parent.mkdir(parents=True, exist_ok=True)\n"
           "df.to_csv(made, index=False)")
EXPERIMENT = ("import pandas as pd\nfrom esa_notebooks.models.detectors.linear import LR\n"
              "from esa_notebooks.models.scores import Scores, save_scores\n"
              "from esa_notebooks.runs.declare import answer, result\n"
              "df = pd.read_csv(prepared)\nX, y = df[['a', 'b', 'c']], df.y.to_numpy()\ndetector = LR(0).fit(X, y)\n"
              "rows = pd.DataFrame({'part': 'test', 'seed': 0, 'row': range(60), 'segment': range(60), 'channel': 'x', 'block': 0,\n"
              "                     'y': y, 'score': detector.score(X), 'decision': detector.score(X) > detector.threshold})\n"
              "about = {'detector': 'LR', 'group': 'supervised', 'class': 'esa_notebooks.models.detectors.linear.LR'}\n"
              "Path(model).parent.mkdir(parents=True, exist_ok=True)\nsave_scores(Scores(about, rows), scores)\ndetector.save(model)\n"
              "answer('It learned.')\nresult('auc_pr', 0.9, label='AUC-PR', ci=(0.8, 0.95), better='higher')")


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """A study with two runs, `prepare` and `experiment`, rendered; with the committed governance files."""
    from esa_notebooks.reports.render import render
    study = Study(tmp_path_factory.mktemp("contents") / "study")
    (study.root / "requirements").mkdir()
    (study.root / "requirements/lock.txt").write_text(f"numpy=={version('numpy')} \\\n    --hash=sha256:{'1' * 64}\n")
    prepare = study.write("prepare", PREPARE, parameters="source: InputFile = 'data/raw.txt'\nmade: OutputFile = 'data/processed/t.csv'")
    (study.root / "data").mkdir()
    (study.root / "data/raw.txt").write_text("original\n")
    experiment = study.write("experiment", EXPERIMENT, parameters=(
        "prepared: InputFile = 'data/processed/t.csv'\nscores: OutputFile = 'data/interim/s.parquet'\n"
        "model: OutputFile = 'data/interim/m.zip'"))
    git = ["git", "-C", str(study.root), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for args in (["init", "-q"], ["add", "nbs", "requirements", "pyproject.toml", "settings.ini"], ["commit", "-qm", "x"]):
        subprocess.run(git + args, check=True, capture_output=True)
    for notebook in (prepare, experiment):
        done = study.run(notebook)
        assert done.record["status"] == "succeeded", done.record["reason"]
        render(done.folder)
    (study.root / "card.json").write_text(json.dumps({"recordSet": [1], "distribution": [1]}))
    scores, governance = study.root / "data/interim/s.parquet", ROOT / "governance"
    runs = upstream(Shelf(study.root / "reports"), "data/interim/s.parquet", sha256(scores))
    return Material(study.root, read(governance / "models/opssat-anomalies.yaml", at=AT), "The team", study.root / "data/interim/m.zip",
                    scores, tuple(runs), governance / "gate.yaml", governance / "approvers.yaml", governance / "annex_iv.yaml",
                    governance / "crosswalk.yaml", {"opssat": ROOT / "data/contracts/opssat.yaml"},
                    {"opssat": study.root / "card.json"}, "2026-11-25T08:00:00Z")


@pytest.fixture(scope="module")
def findings(material) -> dict[str, Finding]:
    checks = read_policy(material.policy, "detector").checks
    return {c.name: Finding(c.name, {"seen": True}, f"run#{c.name}", f"About {c.name} something was found.")
            for c in checks if not c.human and not c.comparison}


@pytest.fixture(scope="module")
def whole(material, findings, tmp_path_factory):
    """All of it: draft, finding, decision, contents, bundle."""
    comparison = {"comparison": Finding("comparison", {"difference": 0.1}, "run#comparison", "It was compared.")}
    findings = {**findings, **comparison}
    draft = contents(material, findings, tmp_path_factory.mktemp("scratch"))
    subject = {"name": material.declaration.name, "kind": "detector", "domain": "operational", "detector": "LR",
               "sha256": sha256(material.detector), "run_id": material.runs[0].name}
    against = {"kind": "baseline", "name": "LR", "sha256": "0" * 64, "version": None}
    decision = decide(read_policy(material.policy, "detector"), findings, subject, against, AT).document()
    made = contents(material, findings, tmp_path_factory.mktemp("scratch"), decision)
    bundle = build(tmp_path_factory.mktemp("bundles"), made.files, predicate(material, decision, ["a@example.org"]), KEY)
    return draft, decision, made, bundle, findings


def test_every_clause_has_its_evidence_before_the_decision_and_in_the_finished_bundle(material, whole):
    draft, _, made, bundle, _ = whole
    assert draft.matrix.of("lacking") == made.matrix.of("lacking") == []
    there = {p.relative_to(bundle.folder).as_posix(): p for p in bundle.folder.rglob("*") if p.is_file()}
    final = matrix.resolve(matrix.read_annex(material.annex), matrix.read_crosswalk(material.crosswalk), there, "x", promised=())
    assert final.of("lacking") == []   # the statement, promised before, is there now


def test_the_bundle_is_intact_and_has_the_layout_that_others_rely_on(material, whole):
    *_, bundle, _ = whole
    assert verify_bundle(bundle.folder, {key_id(public_bytes(KEY)): public_bytes(KEY)}) == []
    for path in ("model/detector.zip", "decision/decision.json", "decision/findings.json", "data/opssat/contract.yaml", "crate/run.zip",
                 "bom/model.cdx.json", "bom/environment.cdx.json", "card/model_card.html", "card/model_card.md",
                 "matrix/traceability.json", "matrix/traceability.html", "governance/gate.yaml", "governance/declaration.yaml",
                 "governance/approvers.yaml", "governance/history.json", "environment/lock.txt", "README.md",
                 f"runs/experiment/{material.runs[0].name}/report.html", f"runs/prepare/{material.runs[1].name}/notebook.ipynb"):
        assert (bundle.folder / path).is_file(), path
    for name in ("model", "environment"):
        check_bom(json.loads((bundle.folder / f"bom/{name}.cdx.json").read_bytes()))


def test_the_same_evidence_gives_the_same_bundle(material, whole, tmp_path):
    _, decision, _, bundle, findings = whole
    again = contents(material, findings, tmp_path, decision)
    assert build(tmp_path / "bundles", again.files, predicate(material, decision, ["a@example.org"]), KEY).address == bundle.address


def test_strangers_check_it_with_the_commands_of_the_readme(whole, tmp_path, require):
    require("openssl", shutil.which("openssl"), "the command is not there")
    bundle = Path(shutil.copytree(whole[3].folder, tmp_path / whole[3].address))
    script = (bundle / "README.md").read_text().split("```bash\n")[1].split("```")[0]

    def run(key=public_text(KEY)):
        done = subprocess.run(["bash", "-c", script], cwd=bundle, capture_output=True, text=True,
                              env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "KEY": key})
        return done.stdout + done.stderr

    told = run()
    assert "Signature Verified Successfully" in told and told.count(": OK") == len(json.loads((bundle / "manifest.json").read_bytes()))
    lines = told.splitlines()
    assert lines[0].split()[0] == lines[1] == bundle.name and lines[-1].startswith("Signature")   # 3 and 5 print nothing
    assert "Signature Verified Successfully" not in run(public_text(Ed25519PrivateKey.generate()))
    (bundle / "governance/gate.yaml").write_text("checks: none\n")
    (bundle / "added.txt").write_text("x")
    told = run()
    assert "governance/gate.yaml: FAILED" in told and "> added.txt" in told


def test_a_missing_card_of_the_data_blocks(material, findings, tmp_path):
    draft = contents(replace(material, cards={}), findings, tmp_path)
    assert "2(d)" in matrix.finding(draft.matrix).values["lacking"]


def test_restricted_data_is_named_in_the_crate_and_not_packed(material, whole, tmp_path):
    import zipfile
    secret = replace(material, declaration=replace(material.declaration, data_class="restricted"))
    draft, *_, findings = whole
    for made, packed in ((draft, True), (contents(secret, findings, tmp_path), False)):
        names = zipfile.ZipFile(made.files["crate/run.zip"]).namelist()
        assert any(n.endswith("t.csv") for n in names) == packed


def test_what_does_not_belong_together_is_refused(material, whole, tmp_path):
    _, decision, _, _, findings = whole
    other = tmp_path / "other.zip"
    other.write_bytes(b"another detector")
    with pytest.raises(ContentsError, match="detector .* was not written by run"):
        contents(replace(material, detector=other), findings, tmp_path)
    with pytest.raises(ContentsError, match="scores .* was not written by run"):
        contents(replace(material, scores=other), findings, tmp_path)
    with pytest.raises(ContentsError, match="The decision is about"):
        contents(material, findings, tmp_path, {**decision, "subject": {**decision["subject"], "sha256": "f" * 64}})
    with pytest.raises(ContentsError, match="The decision is about"):
        contents(material, findings, tmp_path, {**decision, "subject": {**decision["subject"], "name": "another"}})


def test_a_run_without_its_report_is_refused(material, findings, tmp_path):
    copy = Path(shutil.copytree(material.runs[1], tmp_path / "prepare" / material.runs[1].name))
    (copy / "report.html").unlink()
    with pytest.raises(ContentsError, match="has no report.html"):
        contents(replace(material, runs=(material.runs[0], copy)), findings, tmp_path)


def test_a_lock_that_is_gone_is_refused(material, findings, tmp_path):
    root = Path(shutil.copytree(material.root, tmp_path / "study", ignore=shutil.ignore_patterns(".git")))
    (root / "requirements/lock.txt").write_text("numpy==0.1\n")
    with pytest.raises(ContentsError, match="lock files"):
        contents(replace(material, root=root), findings, tmp_path)


def test_runs_are_found_upstream_and_readers_by_what_they_read(material):
    shelf = Shelf(material.root / "reports")
    assert [r.parent.name for r in material.runs] == ["experiment", "prepare"]
    table = sha256(material.root / "data/processed/t.csv")
    assert readers(shelf, [table], ["quality", "experiment"]) == [material.runs[0]]
    with pytest.raises(ContentsError, match="No run in"):
        upstream(shelf, "data/interim/s.parquet", "0" * 64)
