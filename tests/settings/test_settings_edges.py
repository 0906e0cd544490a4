"""Settings: credentials in every guise, and the places where a wrong name used to pass unnoticed."""
import pytest

from esa_notebooks.settings import KEYS, SettingsError, has_credentials, load, project_root


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project: write its settings.ini, load it."""
    monkeypatch.delenv("ESA_PROJECT_ROOT", raising=False)
    (tmp_path / "pyproject.toml").touch()

    def write(text: str, env: dict | None = None):
        (tmp_path / "settings.ini").write_text(text)
        return load(tmp_path, env or {})
    return write


@pytest.mark.parametrize("query", ["token", "access_token", "private-token", "api_key", "apikey", "X-Amz-Signature", "sig",
                                   "auth_token", "client_secret", "password", "passphrase", "user_credentials"])
def test_credentials_in_a_query(query):
    assert has_credentials(f"https://store.example/x?a=1&{query}=hunter2")


@pytest.mark.parametrize("url", ["https://store.example/token/x", "https://store.example/x?page=2&tokens_per_page=5",
                                 "sqlite:///mlflow.db", "postgresql://mlflow@db/x", "data/raw", "s3://bucket/secret/x", ""])
def test_no_credentials(url):
    assert not has_credentials(url)


@pytest.mark.parametrize("text", [
    "uri = https://me:hunter2@db/x\n", "[tracking]\nhttps://me:hunter2@db/x\n", "https://me:hunter2@db/x",
    "[run]\ntimeout_s = https://me:hunter2@db/x\n", "[study]\nprofile = https://me:hunter2@db/x\n",
    "[tracking]\nuri = https://me:hunter2@db/x\nuri = https://me:hunter2@db/y\n", "[tracking\nuri = https://me:hunter2@db/x\n",
], ids=["no-section", "no-key", "bare", "number", "choice", "twice", "broken-section"])
def test_a_password_is_refused_and_never_repeated(project, text):
    with pytest.raises(SettingsError, match="settings.ini") as e:
        project(text)
    assert "hunter2" not in str(e.value) and e.value.__cause__ is None


@pytest.mark.parametrize("text, line", [("mirror = x\n", 1), ("[data]\nmirror = x\nnonsense\n", 3)])
def test_an_unreadable_line_is_named_by_its_number(project, text, line):
    with pytest.raises(SettingsError, match=f"settings.ini cannot be read: line {line} is neither"):
        project(text)


@pytest.mark.parametrize("name", list(KEYS))
def test_every_setting_has_a_variable_and_a_near_miss(project, name):
    variable = "ESA_" + name.replace(".", "_").upper()
    value = {"bool": "true", "int": "7", "float": "7", "url": "https://x.example/", "choice": "slurm"}.get(KEYS[name].kind, "x")
    assert project("", {variable: value}).origin(name) == f"environment variable {variable}"
    with pytest.raises(SettingsError, match=f"no such setting. Did you mean `{variable}`"):
        project("", {variable + "S": value})


@pytest.mark.parametrize("variable", ["ESA_RUN_ID", "ESA_KERNEL", "ESA_PROJECT_ROOT", "ESA_REQUIRE", "ESA_SECRET_TRACKING_URI"])
def test_reserved_variables_are_no_settings(project, variable):
    project("", {variable: "x"})


def test_a_root_that_is_told_and_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ESA_PROJECT_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="ESA_PROJECT_ROOT is .*nowhere, which holds no settings.ini"):
        project_root()
