"""Secrets: whatever a notebook does with one, no byte of the run's folder holds it."""
import base64
import json
import shlex
from urllib.parse import quote

import pytest

from esa_notebooks.runs.parameters import ParameterError
from esa_notebooks.runs.redaction import Redactor, SecretError, secret
from tests.runs.conftest import text_of
from tests.runs.test_parameters import no_kernel, refused  # noqa: F401

VALUE = "p&ss<w>'rd\"\\ü 42+/="   # everything that some encoding writes differently
WAYS = {
    "printed": "print(key)",
    "repr": "print(repr(key), [key], {'k': key})",
    "base64": "import base64; print(base64.b64encode(key.encode()).decode(), base64.urlsafe_b64encode(key.encode()))",
    "hex": "print(key.encode().hex())",
    "url": "from urllib.parse import quote, quote_plus; print(quote(key), quote(key, safe=''), quote_plus(key))",
    "json": "import json; print(json.dumps({'k': key}), json.dumps(key, ensure_ascii=False))",
    "html": "import html\nfrom IPython.display import HTML; display(HTML(html.escape(key)), HTML(html.escape(key, False)))",
    "in-two-prints": "print(key[:5], end='', flush=True); print(key[5:])",
    "in-two-flushes": "import time\nfor c in key: sys.stdout.write(c); sys.stdout.flush(); time.sleep(0.01)",
    "stderr": "print(key, file=sys.stderr)",
    "last-value": "key",
    "display": "display({'text/html': f'<b>{key}</b>', 'text/plain': key, 'application/json': {key: [key]}}, raw=True)",
    "metadata": "display({'text/plain': 'x'}, raw=True, metadata={'note': key})",
    "declaration": "from esa_notebooks.runs.declare import result, answer\nresult('a', key, label=key, unit=key); answer(key)",
    "environment": "print(dict(os.environ))",
    "logging": "import logging; logging.warning('%s', key)",
    "warning": "import warnings; warnings.warn(key)",
    "child": "import subprocess\nsubprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"ESA_SECRET_KEY\"])'])",
    "exception": "raise ValueError(key)",
    "exception-chain": "try: raise KeyError(key)\nexcept KeyError as e: raise RuntimeError('no') from e",
    "last-words": "os.write(2, key.encode()); os._exit(3)",
    "exit-message": "sys.exit(key)",
    "assertion": "assert key == 'x', key",
}


def spellings(value: str) -> list[bytes]:
    raw = value.encode()
    forms = [value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value), base64.b64encode(raw).decode(),
             base64.urlsafe_b64encode(raw).decode(), raw.hex()]
    inner = [json.dumps(f, ensure_ascii=ascii_)[1:-1] for f in forms for ascii_ in (True, False)]   # as a JSON file holds it
    return [f.encode() for f in {*forms, *inner}]


@pytest.mark.parametrize("way", list(WAYS))
def test_no_byte_of_the_run_holds_the_secret(study, monkeypatch, way):
    monkeypatch.setenv("ESA_SECRET_KEY", VALUE)
    run = study.run(study.write("n", WAYS[way], parameters="key: Secret = 'secret://KEY'"))
    for file in run.folder.rglob("*"):
        content = file.read_bytes()
        assert [s for s in spellings(VALUE) if s in content] == [], file.name
    fails = way in ("exception", "exception-chain", "last-words", "exit-message", "assertion")
    assert run.record["status"] == ("failed" if fails else "succeeded"), run.record["reason"]
    if way in ("printed", "exception", "last-words", "in-two-flushes"):
        assert "[secret KEY]" in (run.folder / "notebook.ipynb").read_text()


def test_the_kernel_gets_the_value_and_the_record_its_name(study, monkeypatch):
    monkeypatch.setenv("ESA_SECRET_KEY", VALUE)
    run = study.run(study.write("n", f"print(key == {VALUE!r}[:0] + ''.join(map(chr, {[ord(c) for c in VALUE]})))",
                                parameters="key: Secret"), {"key": "secret://KEY"})
    assert text_of(run).strip() == "True"
    assert run.record["parameters"][0]["value"] == "secret://KEY"
    assert "key=secret://KEY" in shlex.split(run.record["command"])


def test_a_secret_that_was_not_declared_is_struck_out_too(study, monkeypatch):
    monkeypatch.setenv("ESA_SECRET_OTHER", "undeclared-value")
    run = study.run(study.write("n", "print(os.environ['ESA_SECRET_OTHER'])"))
    assert text_of(run).strip() == "[secret OTHER]"


def test_a_secret_from_a_file(study):
    folder = study.root / ".secrets"
    folder.mkdir()
    (folder / "KEY").write_text("file-secret\n")
    (folder / "KEY").chmod(0o600)
    run = study.run(study.write("n", "print(len(key), key)", parameters="key: Secret = 'secret://KEY'"))
    assert text_of(run).strip() == "11 [secret KEY]"


def test_the_value_is_no_part_of_the_key(study, monkeypatch):
    path = study.write("n", "1", parameters="key: Secret = 'secret://KEY'")
    keys = set()
    for value in ("first-value", "second-value"):
        monkeypatch.setenv("ESA_SECRET_KEY", value)
        keys.add(study.plan(path).key)
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(study, no_kernel, mode):  # noqa: F811
    (study.root / ".secrets").mkdir()
    (study.root / ".secrets" / "KEY").write_text("file-secret")
    (study.root / ".secrets" / "KEY").chmod(mode)
    with pytest.raises(ParameterError, match="can be read by others. Run: chmod 600") as e:
        study.run(study.write("n", parameters="key: Secret = 'secret://KEY'"))
    assert "file-secret" not in str(e.value)


def test_a_value_given_for_a_secret_is_not_repeated(study, no_kernel):  # noqa: F811
    message = refused(study, study.write("n", parameters="key: Secret"), {"key": "hunter2-hunter2"}, text=True)
    assert "hunter2" not in message and "never its value" in message


def test_near_miss_and_short_values(tmp_path):
    with pytest.raises(SecretError, match="Did you mean `API_KEY`"):
        secret("secret://API_KEYS", tmp_path, {"ESA_SECRET_API_KEY": "correct-horse"})
    with pytest.raises(SecretError, match="fewer than 6 characters") as e:
        secret("secret://PIN", tmp_path, {"ESA_SECRET_PIN": "12345"})
    assert "12345" not in str(e.value)


def test_the_longer_spelling_is_struck_out_first():
    redactor = Redactor({"A": "abcdef", "B": "abcdefghi"})
    assert redactor.text("abcdefghi abcdef") == "[secret B] [secret A]"
    assert redactor.walk({"abcdef": ["x abcdef", 1, None, {"k": "abcdefghi"}]}) == {
        "[secret A]": ["x [secret A]", 1, None, {"k": "[secret B]"}]}
