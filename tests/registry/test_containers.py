"""Containers: what is rendered, what linters say, that no declaration breaks out of it, and that the lock suffices."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from esa_notebooks.models.detectors.trees import ExtraTrees
from esa_notebooks.registry.containers import ContainerError, Unit, check_definition, pinned, recipes, render
from esa_notebooks.registry.declaration import read
from tests.registry.registry_world import readings

ROOT = Path(__file__).resolve().parents[2]
BASE = "python@sha256:" + "0" * 64
ABOUT = read(ROOT / "governance" / "models" / "opssat-anomalies.yaml")
UNIT = Unit(ABOUT, "1", "0" * 64, "0" * 64, BASE)
HOSTILE = 'x"\nUSER root\nRUN id\n%setup\n  id\n$HOME `id` $(id) \\ {{ secret }} \u2028 \x1b[31m'


def hadolint(text: str, require) -> list[dict]:
    tool = Path(sys.executable).parent / "hadolint"
    require("hadolint", tool.exists(), "the linter of container files is not installed")
    done = subprocess.run([tool, "--format", "json", "-"], input=text, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "unit",
    [UNIT, replace(UNIT, declaration=replace(ABOUT, title=HOSTILE, purpose=HOSTILE, out_of_scope=(HOSTILE,)))],
    ids=["committed", "hostile"],
)
def test_the_containerfile_passes_the_linter(unit, require):
    assert hadolint(recipes(unit)["Containerfile"], require) == []


def test_the_linter_would_complain(require):
    careless = recipes(UNIT)["Containerfile"].replace(BASE, "python:latest").replace("USER 10001:10001", "USER root")
    assert {"DL3007", "DL3002"} <= {c["code"] for c in hadolint(careless, require)}


def test_the_committed_example_is_what_is_rendered():
    for name, text in recipes(UNIT).items():
        assert (ROOT / "deploy" / "opssat-anomalies" / name).read_text(encoding="utf-8") == text, (
            f"deploy/opssat-anomalies/{name} is stale"
        )


def test_nothing_in_a_declaration_becomes_an_instruction():
    plain, hostile = (
        recipes(UNIT),
        recipes(
            replace(
                UNIT,
                declaration=replace(ABOUT, title=HOSTILE, purpose=HOSTILE, owner="a", out_of_scope=(HOSTILE, HOSTILE)),
            )
        ),
    )
    for name in ("Containerfile", "apptainer.def"):
        assert len(plain[name].splitlines()) == len(hostile[name].splitlines())
        begins = [
            [line.split(" ")[0] for line in text[name].splitlines() if line[:1] not in " "] for text in (plain, hostile)
        ]
        assert begins[0] == begins[1]
    assert (
        "{{" not in hostile["apptainer.def"]
        and "\x1b" not in "".join(hostile.values())
        and "\u2028" not in hostile["Containerfile"]
    )
    assert not re.search(r"(?<!\\)\$", hostile["Containerfile"]), "a builder would put a variable's value there"
    assert check_definition(hostile["apptainer.def"]) == []


def test_what_the_container_promises():
    text = recipes(UNIT)["Containerfile"]
    for promise in (
        f"FROM {BASE}",
        "USER 10001:10001",
        "--require-hashes",
        "HEALTHCHECK",
        "/ping",
        "EXPOSE 8080",
        "sha256sum --check --strict",
        'MLFLOW_DISABLE_TELEMETRY="true"',
        'MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"',
        'risk-class="limited"',
    ):
        assert promise in text
    assert text.index("RUN sha256sum") > text.index("COPY model/") and text.rstrip().splitlines()[-1].startswith(
        "CMD ["
    )
    assert "0.0.0.0" not in recipes(UNIT)["apptainer.def"], "Apptainer shares the network of its host"
    assert not re.search(r"pass(word|wd)|secret|token|api.?key|://(?!127)", text.lower())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Bootstrap: docker\n", "", "begins with Bootstrap"),
        ("Bootstrap:", "Bootstrp:", "Did you mean `Bootstrap`?"),
        ("@sha256:" + "0" * 64, ":latest", "not pinned"),
        ("%runscript", "%runscrip", "Did you mean `runscript`?"),
        ("%post", "%test\n%post", "a second section %test"),
        ("%files", "%setup\n    id\n\n%files", "as root on the host"),
        ("    model /srv/model\n", "    model /srv/model ro\n", "of %files"),
        ("    export HOME=/tmp", "    HOME=/tmp", "exports no variable"),
        ("    esa-notebooks.trl 4", "    esa-notebooks.trl", "a label without a value"),
        ("set -eu", "set -eu {{ x }}", "to be filled in"),
        ("%post", "%", "no section %"),
    ],
)
def test_apptainers_grammar(old, new, told):
    text = recipes(UNIT)["apptainer.def"]
    assert old in text and check_definition(text) == []
    assert any(told in wrong for wrong in check_definition(text.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base": "python:3.11"}, "with its digest"),
        ({"base": "python:3.11" + BASE[6:]}, "no tag"),
        ({"base": BASE + "\nRUN id"}, "with its digest"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"decision": "A" * 64}, "64 hexadecimal"),
        ({"version": "1; id"}, "a number from 1"),
        ({"port": 80}, "needs no root"),
        ({"memory_mib": 1}, "64 MiB"),
    ],
)
def test_a_unit_that_cannot_be(change, told):
    with pytest.raises(ContainerError, match=re.escape(told)):
        replace(UNIT, **change)


def test_the_manifest_is_sane():
    deployment, service, policy = yaml.safe_load_all(recipes(UNIT)["kubernetes.yaml"])
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (
        deployment["spec"]["selector"]["matchLabels"].items()
        <= deployment["spec"]["template"]["metadata"]["labels"].items()
    )
    assert (
        service["spec"]["selector"]
        == policy["spec"]["podSelector"]["matchLabels"]
        == deployment["spec"]["selector"]["matchLabels"]
    )
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container) and container["resources"]["limits"][
        "memory"
    ] == "1024Mi"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert policy["spec"]["egress"] == [] and "&id" not in recipes(UNIT)["kubernetes.yaml"]


def test_the_batch_script_is_a_script():
    subprocess.run(["bash", "-n"], input=recipes(UNIT)["slurm.sh"], text=True, check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("containers")
    project = folder / "project"  # a copy: an export in the meantime would change the library between two tests
    shutil.copytree(ROOT / "esa_notebooks", project / "esa_notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "lock.txt", project / "requirements" / "lock.txt")
    X, y = readings()
    detector = ExtraTrees(0, n_estimators=5).fit(X, y)
    file = detector.save(folder / "detector.zip")
    unit = replace(UNIT, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    return unit, file, X, detector, render(unit, file, X[:3], ["scikit-learn"], folder / "out", project)


def test_the_folder_holds_what_a_build_copies(made):
    unit, file, _, _, folder = made
    copied = re.findall(r"^COPY (\S+)", (folder / "Containerfile").read_text(), re.M)
    copied += [
        line.split()[0]
        for line in re.search(r"%files\n((?: .+\n)+)", (folder / "apptainer.def").read_text())[1].splitlines()
    ]
    assert copied and all((folder / name).exists() for name in copied)
    assert (folder / "model" / "artifacts" / "detector.zip").read_bytes() == file.read_bytes()
    assert unit.sha256 in (folder / "model.sha256").read_text()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "model.sha256"], cwd=folder, check=True)
    assert not list(folder.rglob("__pycache__")) and str(ROOT) not in "".join(
        p.read_text(errors="replace") for p in folder.glob("*") if p.is_file()
    )
    assert not any(
        str(ROOT) in p.read_text(errors="replace")
        for p in (folder / "model").rglob("*")
        if p.suffix != ".zip" and p.is_file()
    )


def test_the_lock_of_the_container_suffices(made):
    """The server of the rendered folder answers in a process that can import only what its requirements.txt lists, and
    the library of the folder; every package has a hash."""
    _, _, X, detector, folder = made
    text = (folder / "requirements.txt").read_text()
    blocks = re.split(r"^(?=\S)", text, flags=re.M)[1:]
    assert len(blocks) > 40 and all("--hash=sha256:" in b for b in blocks) and "torch==" not in text
    allowed = [b.partition("==")[0] for b in blocks]
    probe = (
        "import importlib.metadata as m, json, re, sys\n"
        "allowed = set(json.loads(sys.argv[1])); norm = lambda n: re.sub(r'[-_.]+', '-', n).lower()\n"
        "owners = m.packages_distributions()\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        own = owners.get(name.split('.')[0])\n"
        "        if own and not {norm(o) for o in own} & allowed and 'esa-notebooks' not in own:\n"
        "            raise ModuleNotFoundError('not in the container: ' + name, name=name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "import esa_notebooks; print(esa_notebooks.__file__)\n"
        "from esa_notebooks.registry.scoring import contained\n"
        "app = contained()\n"
        "import asyncio\n"
        "body = sys.stdin.buffer.read(); told = []\n"
        "async def main():\n"
        "    scope = {'type': 'http', 'asgi': {'version': '3.0'}, 'http_version': '1.1', 'method': 'POST',\n"
        "             'path': '/invocations', 'raw_path': b'',\n"
        "             'query_string': b'', 'root_path': '', 'scheme': 'http', 'server': ('x', 1),\n"
        "             'client': ('y', 2), 'headers': [(b'host', b'any'),\n"
        "             (b'content-type', b'application/json'), (b'content-length', str(len(body)).encode())]}\n"
        "    sent = [{'type': 'http.request', 'body': body, 'more_body': False}]\n"
        "    async def receive(): return sent.pop() if sent else await asyncio.sleep(60)\n"
        "    async def send(message): told.append(message)\n"
        "    await app(scope, receive, send)\n"
        "asyncio.run(main())\n"
        "print(b''.join(m.get('body', b'') for m in told).decode())\n"
    )
    question = json.dumps({"dataframe_records": X.head(5).to_dict(orient="records")})
    env = {
        "PATH": os.environ["PATH"],
        "SERVED_MODEL": str(folder / "model"),
        "PYTHONPATH": str(folder),
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", probe, json.dumps(allowed)],
        input=question,
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    where, answer = done.stdout.strip().splitlines()[-2:]
    assert where == str(folder / "esa_notebooks" / "__init__.py")
    assert [p["score"] for p in json.loads(answer)["predictions"]] == detector.score(X.head(5)).tolist()


def test_rendered_twice_is_rendered_the_same(made, tmp_path):
    unit, file, X, _, folder = made
    again = render(unit, file, X[:3], ["scikit-learn"], tmp_path / "again", folder.parent / "project")
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name != "model.sha256"):
        assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert (again / "model/artifacts/detector.zip").read_bytes() == file.read_bytes()


def test_nothing_is_rendered_over_or_from_something_else(made, tmp_path):
    unit, file, X, _, folder = made
    with pytest.raises(ContainerError, match="not empty"):
        render(unit, file, X[:3], [], folder, ROOT)
    with pytest.raises(ContainerError, match="which was let through"):
        render(replace(unit, sha256="1" * 64), file, X[:3], [], tmp_path / "x", ROOT)
    with pytest.raises(ContainerError, match="no hash for .*torch"):
        render(unit, file, X[:3], ["torch"], tmp_path / "x", ROOT)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_without_hashes_is_refused():
    lock = re.sub(r"(?m)^    --hash=\S+( \\)?\n", "", (ROOT / "requirements" / "lock.txt").read_text())
    with pytest.raises(ContainerError, match="no hash"):
        pinned(lock, [])


def test_the_command_in_the_recipe_is_one_command():
    (line,) = [x for x in recipes(UNIT)["Containerfile"].splitlines() if x.startswith("CMD [")]
    words = json.loads(line.removeprefix("CMD "))
    run = next(x for x in recipes(UNIT)["apptainer.def"].splitlines() if x.strip().startswith("exec"))
    assert [w for w in words if w != "0.0.0.0"] == [w for w in shlex.split(run)[1:] if w not in ("127.0.0.1", "$@")]
