"""Bills of materials: valid after the official schema, the same for the same content, and honest about what is not known."""
import copy
import json
from datetime import date
from pathlib import Path

import pytest

from esa_notebooks.gate.evidence import Finding, absent
from esa_notebooks.registry.bom import (
    BomError,
    bom_bytes,
    check_bom,
    environment_bom,
    figures,
    licence,
    model_bom,
    pins,
)
from esa_notebooks.registry.declaration import Consumer, Declaration, Monitoring

ROOT = Path(__file__).resolve().parents[2]
AT = "2026-11-25T08:00:00Z"
DECLARED = Declaration("example", "detector", "An example", "To show", "unit", "technical", "public", "minimal", 3, "0.9",
                       date(2027, 1, 1), ("t",), Monitoring(7, 1, "a@example.org", "run"), "none", 365, ("Not this",),
                       (Consumer("Digest", "report", "d@example.org"),), ("It is made up.",), "A person looks.")
RECORD = {"run_id": "R", "inputs": [{"path": "data/processed/t.parquet", "sha256": "c" * 64},
                                    {"path": "esa_notebooks/models/assets/p.csv", "sha256": "e" * 64}],
          "declarations": [
              {"kind": "result", "name": "auc_pr", "label": "AUC-PR", "value": 0.9801945879171571, "ci": [0.96, 0.99]},
              {"kind": "result", "name": "none", "value": None}, {"kind": "result", "name": "flag", "value": True},
              {"kind": "measurement", "name": "fit_s", "value": 1.0},
              {"kind": "table", "name": "channels", "columns": [{"name": "slice"}, {"name": "auc_pr"}],
               "rows": [["CADC0872", 0.997], ["CADC0884", None]]}]}
ABOUT = {"group": "supervised", "class": "forest.Forest", "detector": "Forest"}
ENERGY = Finding("energy", {"joules_per_1000": 210.0, "method": "estimated"}, "run#energy", "210 J per 1,000 rows.")


def made(findings=None, **changes):
    given = {"sha256": "d" * 64, "packages": ["numpy==2.4.0"], "inputs": ["a row"], "outputs": ["a score"], "owner": "The unit",
             "at": AT, **changes}
    return model_bom(DECLARED, ABOUT, RECORD, {"energy": ENERGY} if findings is None else findings, **given)


def test_the_model_is_valid_and_tells_data_figures_and_energy():
    bom = made()
    check_bom(bom)
    model = bom["metadata"]["component"]
    card = model["modelCard"]
    assert model["type"] == "machine-learning-model" and model["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    assert [c["name"] for c in bom["components"]] == ["data/processed/t.parquet", "numpy"]   # what comes with the code is no data
    assert card["modelParameters"]["datasets"] == [{"ref": f"urn:sha256:{'c' * 64}"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "AUC-PR", "value": "0.9801945879171571", "confidenceInterval": {"lowerBound": "0.96", "upperBound": "0.99"}},
        {"type": "AUC-PR, first seed", "value": "0.997", "slice": "channel CADC0872"}]
    spent = card["considerations"]["environmentalConsiderations"]["energyConsumptions"][0]
    assert spent["activityEnergyCost"]["value"] == pytest.approx(210 / 3.6e6, rel=1e-12) and spent["activity"] == "inference"
    assert card["considerations"]["technicalLimitations"] == ["It is made up.", "Not for: Not this"]


def test_energy_that_was_not_measured_is_not_told():
    for findings in ({}, {"energy": absent("energy", "no meter")}, {"energy": Finding("energy", {"joules_per_1000": None}, "r", "no.")}):
        bom = made(findings)
        check_bom(bom)
        assert "environmentalConsiderations" not in bom["metadata"]["component"]["modelCard"]["considerations"]


def test_the_same_content_gives_the_same_bytes_and_another_content_another_serial_number():
    assert bom_bytes(made()) == bom_bytes(made())
    serials = {made()["serialNumber"], made(sha256="f" * 64)["serialNumber"], made({})["serialNumber"],
               made(at="2026-11-26T08:00:00Z")["serialNumber"]}
    assert len(serials) == 4


@pytest.mark.parametrize("wrong", ["misspelt", "approach", "kWh", "extra"])
def test_what_the_schema_does_not_know_is_refused(wrong):
    bom = copy.deepcopy(made())
    card = bom["metadata"]["component"]["modelCard"]
    if wrong == "misspelt":
        card["quantitiveAnalysis"] = card.pop("quantitativeAnalysis")
    if wrong == "approach":
        card["modelParameters"]["approach"] = {"type": "superb"}
    if wrong == "kWh":
        card["considerations"]["environmentalConsiderations"]["energyConsumptions"][0]["activityEnergyCost"]["unit"] = "J"
    if wrong == "extra":
        bom["extra"] = 1
    with pytest.raises(BomError, match="not CycloneDX 1.6"):
        check_bom(bom)


@pytest.mark.parametrize("changes, said", [({"packages": ["numpy"]}, "pins"), ({"at": "yesterday"}, "no time")])
def test_bad_input_is_named(changes, said):
    with pytest.raises(BomError, match=said):
        made(**changes)


def test_a_nan_is_refused():
    energy = Finding("energy", {"joules_per_1000": float("nan")}, "r", "broken.")
    bom = made({"energy": energy})
    assert "environmentalConsiderations" not in bom["metadata"]["component"]["modelCard"]["considerations"]
    record = {**RECORD, "declarations": [{"kind": "result", "name": "a", "value": float("inf")}]}
    assert figures(record) == []


def test_pins_are_read_with_their_hashes_and_without_comments():
    text = f"a-b==1.0 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{'0' * 64}\n    # via c\nC_d[x]==2.0 ; python_version > '3'\n# e==3\n"
    assert pins(text) == {("a-b", "1.0"): ["0" * 64, "1" * 64], ("c-d", "2.0"): []}
    with pytest.raises(BomError, match="pin no package"):
        environment_bom("x", ["# nothing"], AT)


def test_the_locked_environment_is_valid_and_whole():
    locks = [(ROOT / "requirements" / name).read_text() for name in ("lock.txt", "torch.txt")]
    bom = environment_bom("esa-notebooks", locks, AT)
    few = copy.deepcopy(bom)
    for component in few["components"][10:]:   # the schema's grammar of addresses takes seconds for 300, all of one form
        component.pop("externalReferences", None)
    check_bom(few)
    assert len(bom["components"]) == len(pins(*locks)) > 250
    told = {c["name"]: c for c in bom["components"]}
    assert told["numpy"]["purl"].startswith("pkg:pypi/numpy@") and "BSD-3-Clause" in json.dumps(told["numpy"]["licenses"])
    hashes = told["numpy"]["externalReferences"][0]["hashes"]
    assert all(h["content"] in locks[0] for h in hashes) and "externalReferences" not in told["torch"]


@pytest.mark.slow
def test_every_address_of_the_locked_environment_is_valid():
    check_bom(environment_bom("esa-notebooks", [(ROOT / "requirements" / n).read_text() for n in ("lock.txt", "torch.txt")], AT))


def test_a_licence_is_told_only_of_the_version_that_is_installed():
    assert licence("numpy", "0.0.1") == licence("no-such-package", "1") == ""
