"""One description of a service: what is refused, what is rendered, and the rendered Slurm script at work."""

import copy
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fastjsonschema
import pytest
import yaml
from typer.testing import CliRunner

from esa_notebooks.llm import model
from esa_notebooks.llm.deployment import DeploymentError, parse_deployment
from esa_notebooks.llm.policy import read_policy
from esa_notebooks.llm.rendering import command, network, render, rendered, values
from esa_notebooks.registry.containers import check_definition

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EXAMPLE = ROOT / "deploy" / "llm"
POLICY = read_policy(ROOT / "governance" / "policy.yaml")
GIVEN = yaml.safe_load((EXAMPLE / "service.yaml").read_text())


def changed(**at) -> str:
    """The example with entries replaced: engine__dtype="float16"; None removes one."""
    given = copy.deepcopy(GIVEN)
    for name, value in at.items():
        *sections, last = name.split("__")
        place = given
        for section in sections:
            place = place[section]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(given)  # which is YAML too


def made(**at):
    return parse_deployment(changed(**at), POLICY)


def refused(**at) -> str:
    with pytest.raises(DeploymentError) as e:
        made(**at)
    assert "\n" not in str(e.value) and str(e.value).startswith("service.yaml")
    return str(e.value)


def test_the_committed_example_is_what_comes_out_and_twice_the_same():
    texts = rendered(made())
    assert texts == rendered(made())
    assert {name: (EXAMPLE / name).read_text() for name in texts} == texts
    assert {p.name for p in EXAMPLE.iterdir()} == {*texts, "service.yaml"}


@pytest.mark.parametrize(
    "at, told",
    [
        ({"model__digst": "0" * 64}, "no entry `digst`. Did you mean `digest`"),
        ({"model__digest": None}, "model lacks `digest`"),
        ({"engine__image": "vllm/vllm-openai:latest"}, "digest and no tag"),
        ({"engine__image": "vllm/vllm-openai:v1@sha256:" + "0" * 64}, "digest and no tag"),
        ({"engine__dtype": "float23"}, "float32"),
        ({"engine__flags": ["--enable-prefix-cachin"]}, "Did you mean `--enable-prefix-caching`"),
        ({"engine__flags": ["--trust-remote-code"]}, "may be"),
        ({"data_classes": ["intern"]}, "Did you mean `internal`"),
        ({"machine__gpus": 0}, "engine.build is gpu and machine.gpus 0"),
        ({"machine__gpus": 2}, "cannot be divided among 2"),
        ({"slurm": None, "kubernetes": None}, "nothing would be rendered"),
        ({"replicas": 9}, "outside kubernetes.scaling"),
        ({"engine__build": "cpu", "machine__gpus": 0}, "vllm serve"),
        ({"port": 80}, "from 1024"),
        ({"slurm__time": 86400}, "must be text"),
        ({"model__folder": "/srv/../etc"}, "without `..`"),
        ({"key__file": "key.txt"}, "absolute path"),
        ({"replicas": 2.5}, "whole number"),
    ],
)
def test_what_is_wrong_is_named(at, told):
    assert told in refused(**at)


EVIL = ('a"b', "a'b", "a\nb", "a\n", "$(id)", "`id`", "a;b", "a b", "{{ d }}", "a\x00b", "--flag", "é", "", "../x")


@pytest.mark.parametrize(
    "at",
    [
        "name",
        "model__name",
        "model__folder",
        "slurm__partition",
        "slurm__account",
        "slurm__interface",
        "slurm__image",
        "slurm__addresses",
        "key__secret",
        "key__file",
        "key__entry",
        "kubernetes__monitoring",
        "engine__image",
        "slurm__time",
        "kubernetes__gateway__pods",
        "kubernetes__api",
        "model__digest",
        "engine__version",
    ],
)
def test_no_entry_carries_code_into_a_script(at):
    for evil in EVIL:
        refused(**{at: evil})


def test_the_free_text_stays_in_comments():
    clever = 'x\nrm -rf "$HOME"\r\n#SBATCH --uid=0\n%setup\n{{ secret }}\u2028touch y `id` $(id)'
    texts, plain = rendered(made(about=clever)), rendered(made(about="plain"))
    bare = [[line for line in t["slurm.sbatch"].splitlines() if not line.startswith("# ")] for t in (texts, plain)]
    assert bare[0] == bare[1]
    assert check_definition(texts["apptainer.def"]) == []
    assert yaml.safe_load(texts["values.yaml"]) == yaml.safe_load(plain["values.yaml"])


def test_a_restricted_class_is_not_served_on_a_cloud():
    assert "`restricted` would be served on a cloud" in refused(where="cloud")
    assert "`internal` would be served on a cloud" in refused(where="cloud", data_classes=["public", "internal"])
    assert made(where="cloud", data_classes=["public"]).where == "cloud"


def test_memory_is_refused_exactly_where_it_ends():
    rng = random.Random(0)
    for _ in range(60):
        at = {
            "engine__dtype": rng.choice(["float32", "float16"]),
            "engine__context": rng.choice([512, 2048, 8192]),
            "machine__gpu_memory_gib": rng.randrange(8, 81),
            "machine__gpu_share": rng.choice([0.5, 0.9]),
            "engine__sequences": 1,
            "engine__working_gib": 2,
        }
        size = {"float32": 4, "float16": 2}[at["engine__dtype"]]
        free = int(at["machine__gpu_memory_gib"] * 2**30 * at["machine__gpu_share"]) - 134_515_008 * size - 2 * 2**30
        most = min(free // (2 * 30 * 3 * 64 * size * at["engine__context"]), 4096)
        assert made(**at | {"engine__sequences": most}).engine.sequences == most
        if most < 4096:
            told = refused(**at | {"engine__sequences": most + 1})
            assert (
                f"at most {most}" in told
                and "134,515,008 parameters" in told
                and "2 × 30 layers × 3 heads × 64" in told
            )


def test_a_model_that_does_not_fit_at_all_says_so():
    told = refused(model__parameters=70_000_000_000)
    assert "260.77 GiB" in told and "Not even one sequence fits" in told


def test_on_processors_the_cache_is_sized_and_nothing_asks_for_a_gpu():
    cpu = made(engine__build="cpu", machine__gpus=0, kubernetes=None)
    texts = rendered(cpu)
    assert set(texts) == {"slurm.sbatch", "apptainer.def", "check_weights.py"}
    need = 64 * 2048 * 2 * 30 * 3 * 64 * 4
    assert f"VLLM_CPU_KVCACHE_SPACE={-(-need // 2**30)}" in texts["apptainer.def"]
    assert "--nv" not in texts["slurm.sbatch"] and "gres" not in texts["slurm.sbatch"]
    assert "--tensor-parallel-size" not in command(cpu)


def test_linters_find_nothing():
    texts = rendered(made())
    for text in (texts["slurm.sbatch"], rendered(made(slurm__interface="ib0"))["slurm.sbatch"]):
        for linter in (["bash", "-n"], [BIN / "shellcheck", "-"]):
            told = subprocess.run(linter, input=text, capture_output=True, text=True)
            assert told.returncode == 0, told.stdout + told.stderr
    assert check_definition(texts["apptainer.def"]) == []
    rules = "{extends: default, rules: {line-length: {max: 200}}}"
    told = subprocess.run(
        [BIN / "yamllint", "--strict", "-d", rules, *EXAMPLE.glob("*.yaml")], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout


def test_the_values_have_the_names_of_the_chart():
    """The part of the chart's schema that is used, from its documentation: names, kinds, and no others."""
    schema = json.loads((Path(__file__).parent / "golden" / "vllm-stack.schema.json").read_text())
    check = fastjsonschema.compile(schema)
    check(json.loads(json.dumps(values(made()))))
    wrong = json.loads(json.dumps(values(made())))
    wrong["servingEngineSpec"]["modelSpec"][0]["vllmConfig"]["maxModelLenght"] = 1
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check(wrong)


def test_kubernetes_pins_images_names_a_secret_and_closes_the_network():
    text, given = rendered(made())["values.yaml"], values(made())
    spec = given["servingEngineSpec"]["modelSpec"][0]
    assert f"{spec['repository']}:{spec['tag']}" == made().engine.image
    assert "latest" not in text and given["servingEngineSpec"]["vllmApiKey"] == {
        "secretName": "assistant-key",
        "secretKey": "api-key",
    }
    names = [e["name"] for e in spec["env"]]
    assert len(names) == len(set(names)) and not {"HF_HOME", "VLLM_API_KEY", "HF_TOKEN"} & set(names)
    engine, router = network(made())
    assert engine["spec"]["egress"] == [] and all(
        p["spec"]["policyTypes"] == ["Ingress", "Egress"] for p in (engine, router)
    )
    assert engine["spec"]["podSelector"]["matchLabels"] == given["servingEngineSpec"]["labels"]
    assert router["spec"]["podSelector"]["matchLabels"] == given["routerSpec"]["labels"]
    (into,) = router["spec"]["ingress"][0][
        "from"
    ]  # one entry with both selectors: the gateway's pods in its namespace, not either
    assert set(into) == {"namespaceSelector", "podSelector"}


def test_the_weights_are_checked_by_the_digest_of_the_evaluation(tmp_path):
    (tmp_path / "m" / "sub").mkdir(parents=True)
    for name, text in (
        ("config.json", "{}"),
        ("sub/weights.safetensors", "w"),
        ("README.md", "r"),
        ("model.json", "{}"),
    ):
        (tmp_path / "m" / name).write_text(text)
    found = model.digest(tmp_path / "m")

    def ask(digest):
        return subprocess.run(
            [sys.executable, EXAMPLE / "check_weights.py", tmp_path / "m", digest], capture_output=True, text=True
        )

    assert ask(found).returncode == 0
    (tmp_path / "m" / "README.md").write_text("another")
    assert ask(found).returncode == 0
    (tmp_path / "m" / "sub" / "weights.safetensors").write_text("v")
    assert ask(found).returncode == 1 and found in ask(found).stderr


def test_the_example_names_the_embedded_model():
    made_here = ROOT / "data" / "interim" / "llm" / "models" / model.NAME / "model.json"
    if not made_here.is_file():
        pytest.skip("the embedded model was not converted on this machine")
    assert json.loads(made_here.read_text())["digest"] == made().model.digest


def test_render_writes_what_changed_and_check_writes_nothing(tmp_path):
    assert len(render(made(), tmp_path, check=True)) == 5 and list(tmp_path.iterdir()) == []
    assert len(render(made(), tmp_path)) == 5 and render(made(), tmp_path) == []
    (tmp_path / "values.yaml").write_text("edited")
    assert render(made(), tmp_path, check=True) == ["values.yaml"] == render(made(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError, match="cannot be written"):
        render(made(), tmp_path / "file")


def test_the_command_says_what_would_change(tmp_path, monkeypatch):
    from esa_notebooks.commands import deploy  # noqa: F401  hangs the command on `app`
    from esa_notebooks.commands.app import app

    monkeypatch.chdir(ROOT)
    run = CliRunner().invoke
    assert run(app, ["llm", "render", "--out", str(tmp_path), "--check"]).exit_code == 1
    assert run(app, ["llm", "render", "--out", str(tmp_path)]).exit_code == 0
    told = run(app, ["llm", "render", "--out", str(tmp_path), "--check"])
    assert told.exit_code == 0 and "up to date" in told.output
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    assert run(app, ["llm", "render", str(broken)]).exit_code == 1


# The rendered script at work: a scripted `apptainer` that serves, dies, or never answers; and a scripted `scontrol`.

ENGINE = """#!{python}
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
log = open({log!r}, "a", buffering=1)
log.write(json.dumps({{"argv": sys.argv[1:], "key": os.environ.get("APPTAINERENV_VLLM_API_KEY")}}) + "\\n")
mode, began = open({mode!r}).read().strip(), time.monotonic()
if mode == "dies":
    sys.exit(3)
def end(*_):
    log.write(json.dumps({{"ended": "TERM"}}) + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers["Authorization"] == "Bearer the-key" and body["model"] == "smollm2-135m-instruct"
        late = mode == "late" and time.monotonic() - began < 2
        self.send_response(200 if good and not late and mode != "never" else 500); self.end_headers()
        self.wfile.write(b"{{}}")
    def log_message(self, *a): pass
at = dict(zip(sys.argv, sys.argv[1:]))
HTTPServer((at["--host"], int(at["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def job(tmp_path):
    """Starts the rendered script as a job would: `job(mode)` gives the process."""
    if not shutil.which("curl"):
        pytest.skip("curl is not on this machine")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "bin").mkdir()
    log, mode, queued = tmp_path / "log", tmp_path / "mode", tmp_path / "queued"
    log.touch()
    (tmp_path / "bin" / "apptainer").write_text(ENGINE.format(python=sys.executable, log=str(log), mode=str(mode)))
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> "{queued}"\n')
    for name in ("apptainer", "scontrol"):
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "key").write_text("the-key\n")
    (tmp_path / "tmp").mkdir()
    text = rendered(made(port=min(port, 60000), slurm__backoff_s=1, slurm__patience_s=3))["slurm.sbatch"]
    text = text.replace("/srv/llm/addresses", str(tmp_path / "addresses")).replace(
        "/srv/secrets/assistant-key", str(tmp_path / "key")
    )
    (tmp_path / "job.sh").write_text(text)
    started = []

    def start(how):
        mode.write_text(how)
        env = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "42",
            "TMPDIR": str(tmp_path / "tmp"),
        }
        with open(tmp_path / "said", "w") as said:
            started.append(
                subprocess.Popen(
                    ["bash", tmp_path / "job.sh"], env=env, stdout=said, stderr=said, start_new_session=True
                )
            )
        return started[-1]

    start.address, start.log, start.mode, start.queued = tmp_path / "addresses" / "assistant-0.json", log, mode, queued
    start.said, start.tmp = tmp_path / "said", tmp_path / "tmp"
    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def until(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_the_address_appears_when_a_request_was_completed_and_goes_with_the_job(job):
    process = job("late")
    until(lambda: "--port" in job.log.read_text())
    time.sleep(0.8)
    assert not job.address.exists()  # it listens, /health is green, and nothing was completed yet
    until(job.address.exists)
    told = json.loads(job.address.read_text())
    assert (
        told["model"] == "smollm2-135m-instruct"
        and told["job"] == "42"
        and re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", told["url"])
    )
    first = json.loads(job.log.read_text().splitlines()[0])
    assert first["key"] == "the-key" and "the-key" not in " ".join(first["argv"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert not job.address.exists() and '"ended": "TERM"' in job.log.read_text() and not job.queued.exists()
    assert list(job.tmp.iterdir()) == []


def test_when_the_time_is_nearly_up_it_stops_and_queues_again(job):
    process = job("serves")
    until(job.address.exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 0
    assert job.queued.read_text() == "requeue 42\n" and not job.address.exists()


def test_a_crash_takes_the_address_away_and_the_engine_comes_back(job):
    job("serves")
    until(job.address.exists)
    pid = int(
        subprocess.run(
            ["pgrep", "-f", f"{job.tmp.parent}/bin/apptainer"], capture_output=True, text=True
        ).stdout.split()[0]
    )
    os.kill(pid, signal.SIGKILL)
    until(lambda: not job.address.exists())
    until(job.address.exists)
    assert len(job.log.read_text().splitlines()) == 2  # it was started twice


@pytest.mark.parametrize("how", ["dies", "never"])
def test_an_engine_that_never_answers_is_given_up_and_never_announced(job, how):
    process = job(how)
    if how == "dies":
        assert process.wait(timeout=40) == 1  # after waits of 1, 2 and 4 s
        assert len(job.log.read_text().splitlines()) == 4 and "given up" in job.said.read_text()
    else:
        until(lambda: "no request was completed within 3 s" in job.said.read_text())
    assert not job.address.exists()


def test_slurm_accepts_the_script(tmp_path):
    if not shutil.which("sbatch"):
        pytest.skip("slurm: no sbatch on this machine")
    text = re.sub(r"#SBATCH --(partition|account|gres|array)=.*\n", "", rendered(made())["slurm.sbatch"])
    (tmp_path / "job.sh").write_text(text)
    told = subprocess.run(["sbatch", "--test-only", tmp_path / "job.sh"], capture_output=True, text=True)
    if "Unable to contact" in told.stderr:
        pytest.skip("slurm: no controller answers")
    assert told.returncode == 0, told.stderr
