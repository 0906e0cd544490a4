"""No phone-home: with every socket but loopback blocked and logged, a run of all the packages leaves the log empty."""
import json
import os
import subprocess
import sys
from pathlib import Path

GUARD = '''
import os, socket
LOG = os.environ["GUARD_LOG"]
def _local(address):
    return isinstance(address, (str, bytes)) or address[0] in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")
def _note(what, address):
    with open(LOG, "a") as f:
        f.write(f"{what} {address!r}\\n")
    raise OSError(f"blocked by the test: {what} {address!r}")
_connect, _connect_ex, _sendto, _resolve = (socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto,
                                            socket.getaddrinfo)
def connect(self, address):
    return _connect(self, address) if _local(address) else _note("connect", address)
def connect_ex(self, address):
    return _connect_ex(self, address) if _local(address) else _note("connect_ex", address)
def sendto(self, data, *rest):
    return _sendto(self, data, *rest) if _local(rest[-1]) else _note("sendto", rest[-1])
def getaddrinfo(host, *rest, **more):
    named = host if isinstance(host, str) else (host or b"").decode()
    return _resolve(host, *rest, **more) if named in ("", "localhost", "127.0.0.1", "::1", socket.gethostname()) else _note("resolve", named)
socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto, socket.getaddrinfo = connect, connect_ex, sendto, getaddrinfo
with open(LOG + ".alive", "a") as f:
    f.write("guarded\\n")
'''
WORK = '''
import jupyterlab, nbdev, pandera.pandas as pa, river, langchain, langchain_core, langchain_openai, snakemake
import mlflow, numpy as np, optuna, pandas as pd, pytorch_lightning as pl, tempfile, torch
from langchain_core.runnables import RunnableLambda
from esa_notebooks.runs.declare import result
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2, n_trials=3)
pa.DataFrameSchema({"a": pa.Column(int)}).validate(pd.DataFrame({"a": [1]}))
where = tempfile.mkdtemp()
mlflow.set_tracking_uri(f"sqlite:///{where}/mlflow.db")
experiment = mlflow.create_experiment("silence", artifact_location=where)
with mlflow.start_run(experiment_id=experiment):
    mlflow.log_metric("x", 1.0)
mlflow.MlflowClient().create_registered_model("silence")
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
assert JsonStrictValidator(SchemaVersion.V1_6).validate_str('{"bomFormat": "CycloneDX", "specVersion": "1.6"}') is None
class Line(pl.LightningModule):
    def __init__(self):
        super().__init__(); self.w = torch.nn.Linear(1, 1)
    def training_step(self, batch, _): return (self.w(batch[0]) ** 2).mean()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 1)))
pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
           accelerator="cpu", default_root_dir=where).fit(Line(), data)
result("answer", RunnableLambda(lambda x: x + 1).batch([1, 2])[1])
'''


def _execute(root: Path, cells: list[str], log: Path) -> subprocess.CompletedProcess:
    guard = root / "guard"
    guard.mkdir(parents=True)
    (guard / "sitecustomize.py").write_text(GUARD)
    for name in ("pyproject.toml", "settings.ini"):
        (root / name).touch()
    code = [{"cell_type": "code", "id": f"c{i}", "source": s, "outputs": [], "execution_count": None,
             "metadata": {"tags": ["parameters"]} if i == 0 else {}} for i, s in enumerate(["n: int = 1  # unused", *cells])]
    (root / "n.ipynb").write_text(json.dumps({"cells": code, "metadata": {"kernelspec": {"name": "python3", "language": "python",
                                              "display_name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}))
    program = ("from esa_notebooks.runs.execution import execute, plan\nfrom esa_notebooks.runs.record import read_record\n"
               "r = read_record(execute(plan('n.ipynb'), quiet=True)); print(r['status'], r['reason'])")
    # Both the runner and, by inheritance, the kernel import the guard before anything else.
    return subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=200,
                          env={k: v for k, v in os.environ.items() if not k.startswith("ESA_")}
                          | {"PYTHONPATH": str(guard), "GUARD_LOG": str(log), "ESA_PROJECT_ROOT": str(root)})


def test_no_package_speaks_to_anybody(tmp_path):
    log = tmp_path / "log"
    ended = _execute(tmp_path / "study", [WORK], log)
    assert ended.stdout.startswith("succeeded"), ended.stdout + ended.stderr
    assert Path(f"{log}.alive").read_text().count("guarded") >= 2, "the guard was not in the runner and the kernel"
    assert not log.exists(), log.read_text()


def test_the_guard_would_have_noticed(tmp_path):
    log = tmp_path / "log"
    ended = _execute(tmp_path / "study", ["import urllib.request; urllib.request.urlopen('http://telemetry.invalid/x')"], log)
    assert ended.stdout.startswith("failed") and "telemetry.invalid" in log.read_text()
