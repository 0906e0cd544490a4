"""Settings: the order of the layers, and every way to get one wrong."""
from pathlib import Path

import pytest

from esa_notebooks.settings import KEYS, SettingsError, load, project_root

ROOT = Path(__file__).resolve().parents[2]


def project(folder: Path, settings: str = "", local: str | None = None) -> Path:
    (folder / "pyproject.toml").touch()
    (folder / "settings.ini").write_bytes(settings.encode("utf-8") if isinstance(settings, str) else settings)
    if local is not None:
        (folder / "settings.local.ini").write_text(local)
    return folder


def test_each_layer_wins_over_the_one_before(tmp_path):
    seen = [load(project(tmp_path), {})]
    seen.append(load(project(tmp_path, "[study]\nname = a\n"), {}))
    seen.append(load(project(tmp_path, "[study]\nname = a\n", "[study]\nname = b\n"), {}))
    seen.append(load(tmp_path, {"ESA_STUDY_NAME": "c"}))
    assert [s.get("study.name") for s in seen] == ["esa_notebooks", "a", "b", "c"]
    assert [s.origin("study.name") for s in seen] == ["default", "settings.ini [study]", "settings.local.ini [study]",
                                                      "environment variable ESA_STUDY_NAME"]


BAD = {
    "unknown key": ("[data]\nmirorr = /x\n", {}, ("settings.ini [data]", "mirorr", "Did you mean `mirror`?")),
    "unknown section": ("[date]\nmirror = /x\n", {}, ("settings.ini [date]", "Did you mean `data`?")),
    "key before any section": ("mirror = /x\n", {}, ("settings.ini",)),
    "key twice": ("[data]\nmirror = /x\nmirror = /y\n", {}, ("settings.ini", "already exists")),
    "no key at all": ("[data]\njust text\n", {}, ("settings.ini",)),
    "word for a number": ("[run]\ntimeout_s = soon\n", {}, ("settings.ini [run]", "whole number")),
    "fraction for a whole number": ("[run]\ntimeout_s = 1.5\n", {}, ("whole number",)),
    "number below zero": ("[run]\ntimeout_s = -1\n", {}, ("above zero",)),
    "zero": ("[run]\ntimeout_s = 0\n", {}, ("above zero",)),
    "infinite": ("[run]\nmemory_gib = inf\n", {}, ("above zero",)),
    "not a number": ("[run]\nmemory_gib = nan\n", {}, ("above zero",)),
    "no truth value": ("[data]\noffline = maybe\n", {}, ("true or false",)),
    "unknown choice": ("[study]\nprofile = labtop\n", {}, ("none of", "Did you mean `laptop`?")),
    "no URL": ("[tracking]\nuri = mlflow.db\n", {}, ("a URL",)),
    "empty": ("[study]\nname =\n", {}, ("is empty",)),
    "password in a URL": ("[tracking]\nuri = postgresql://me:hunter2!@db/x\n", {}, ("password or token", "secret://NAME")),
    "token in a URL": ("[llm]\nendpoint = https://llm.example/v1?api_key=hunter2!\n", {}, ("password or token",)),
    "password in a path": ("[data]\nmirror = https://me:hunter2!@mirror.example/\n", {}, ("password or token",)),
    "environment near miss": ("", {"ESA_DATA_MIROR": "/x"}, ("ESA_DATA_MIROR", "Did you mean `ESA_DATA_MIRROR`?")),
    "environment, unknown key": ("", {"ESA_LLM_MODELS": "x"}, ("ESA_LLM_MODELS", "no such setting")),
    "environment, wrong type": ("", {"ESA_DATA_OFFLINE": "perhaps"}, ("environment variable ESA_DATA_OFFLINE", "true or false")),
}


@pytest.mark.parametrize("case", list(BAD))
def test_refused_by_name(tmp_path, case):
    text, env, said = BAD[case]
    with pytest.raises(SettingsError) as error:
        load(project(tmp_path, text), env)
    assert all(s in str(error.value) for s in said), error.value
    assert "hunter2" not in str(error.value)


def test_not_text_at_all(tmp_path):
    (project(tmp_path) / "settings.ini").write_bytes(b"[study]\nname = \xff\xfe\n")
    with pytest.raises(SettingsError, match="settings.ini cannot be read"):
        load(tmp_path, {})


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path):
    (project(tmp_path) / "settings.ini").write_bytes(b"\xef\xbb\xbf[study]\r\nname = a\r\n")
    assert load(tmp_path, {}).get("study.name") == "a"


def test_a_percent_sign_is_only_a_percent_sign(tmp_path):
    assert load(project(tmp_path, "[study]\nname = 100 %(x)s\n"), {}).get("study.name") == "100 %(x)s"


def test_other_programs_may_have_variables_of_their_own(tmp_path):
    env = {"ESA_REQUIRE": "x", "ESA_SECRET_TOKEN": "x", "ESA_RUN_ID": "x", "ESA_SNAP_HOME": "/opt/snap"}
    assert load(project(tmp_path), env).get("data.mirror") is None


def test_paths_count_from_the_project_and_home_is_known(tmp_path):
    settings = load(project(tmp_path, "[paths]\nreports = out/reports\n[data]\nmirror = ~/mirror\n"), {})
    assert settings.path("paths.reports") == tmp_path / "out" / "reports" and settings.path("data.mirror") == Path.home() / "mirror"


def test_an_unknown_name_in_code_is_named(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean `data.mirror`"):
        load(project(tmp_path), {}).get("data.mirorr")


def test_no_project_here(tmp_path, monkeypatch):
    monkeypatch.setattr("esa_notebooks.settings.__file__", str(tmp_path / "lib" / "esa_notebooks" / "settings.py"))
    with pytest.raises(SettingsError, match="No project here"):
        project_root(tmp_path)


def test_the_committed_file_is_complete_and_says_what_it_is():
    text = (ROOT / "settings.ini").read_text()
    first = text.splitlines()[0]
    assert "study's settings" in first and "nbdev" in first
    said = load(ROOT, {})
    assert not [k for k in KEYS if f"\n{k.split('.')[1]} =" not in text], "a known setting is not shown in settings.ini"
    local = ROOT / "settings.local.ini"
    if not local.exists():
        assert {k: said.get(k) for k in KEYS} == {k: v.default for k, v in KEYS.items()}, "the file and the defaults disagree"
    assert "settings.local.ini" in (ROOT / ".gitignore").read_text()
