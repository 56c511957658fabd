"""Which mode holds, and the verbs that set it for a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import flightlog
from flightlog import keys, online, projectfile, settings
from flightlog.errors import SettingsError

from ..server.tools import quick

NEAR, FAR = "http://127.0.0.1:9", "https://far.example"


@pytest.fixture(autouse=True)
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the mode is not laid down for the tests."""
    monkeypatch.delenv("FLIGHTLOG_MODE")


def mode_with(**arguments: object) -> online.Choice:
    return online.choose(settings.load(**arguments))


def test_without_a_server_runs_are_offline_and_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is configured: a run is what it always was."""
    choice = mode_with()
    assert choice.mode == "offline" and not choice.worth_saying
    flightlog.init()
    flightlog.finish()
    said = capfd.readouterr().err
    assert "online" not in said and "warning" not in said and "deliver it with: flightlog sync" in said


def test_a_login_makes_runs_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that was signed in to last, with its key; an argument, a variable or a file says otherwise."""
    keys.store(FAR, "fl_key", insecure=False)
    assert mode_with() == ("online", f"there is an API key for {FAR}", (FAR, False), False)
    assert mode_with(mode="offline").mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert mode_with().mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode_with().mode == "online"
    Path("flightlog.toml").write_text('mode = "disabled"\n')
    assert mode_with().mode == "disabled"
    monkeypatch.setenv("FLIGHTLOG_MODE", "offline")
    assert mode_with().why == "FLIGHTLOG_MODE says so"


def test_a_server_in_the_environment_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key it is online, by the key of the environment; without it offline, in so many words."""
    monkeypatch.setenv("FLIGHTLOG_BASE_URL", NEAR)
    choice = mode_with()
    assert choice.mode == "offline" and choice.worth_saying and f"flightlog login {NEAR}" in choice.why
    monkeypatch.setenv("FLIGHTLOG_API_KEY", "fl_key")
    assert mode_with().destination == (NEAR, True)


@pytest.mark.parametrize("mode", [None, "online"])
def test_an_address_from_a_project_file_gets_no_key_unasked(
    mode: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file may have come with a cloned repository: offline, one line says how to allow it; a login allows it."""
    monkeypatch.setenv("FLIGHTLOG_API_KEY", "fl_secret")
    Path("flightlog.toml").write_text(f'base_url = "{FAR}"\n')
    flightlog.init(mode=mode)
    flightlog.finish()
    said = capfd.readouterr().err
    assert said.count("warning") == 1 and f"flightlog login {FAR}" in said and "fl_secret" not in said
    keys.store(FAR, "fl_stored", insecure=False)
    choice = mode_with(mode=mode)
    assert choice.destination == (FAR, False), "the stored key, not the environment's"


def test_plain_http_elsewhere_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key goes over a network in clear text unless that was agreed to at the login."""
    monkeypatch.setenv("FLIGHTLOG_BASE_URL", "http://far.example")
    monkeypatch.setenv("FLIGHTLOG_API_KEY", "fl_key")
    assert mode_with().mode == "offline" and "--insecure" in mode_with().why
    keys.store("http://far.example", "fl_key", insecure=True)
    assert mode_with().mode == "online"


@pytest.mark.parametrize("url", ["http://[", "ftp://x", "http://127.0.0.1:9/path"])
def test_an_address_that_is_none_does_not_stop_a_training(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is offline, and the line names the address."""
    monkeypatch.setenv("FLIGHTLOG_BASE_URL", url)
    flightlog.init()
    flightlog.finish()
    said = capfd.readouterr().err
    assert said.count("warning") == 1 and url in said


def test_damaged_credentials_do_not_stop_a_training(capfd: pytest.CaptureFixture[str]) -> None:
    """It is offline, and the line names the file."""
    path = settings.config_home() / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text("garbage")
    flightlog.init()
    flightlog.finish()
    assert str(path) in capfd.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'mode = "offline"\n'),
        ('project = "p"\n', 'mode = "offline"\nproject = "p"\n'),
        ("# why\nproject = 'p'\n", "# why\nmode = \"offline\"\nproject = 'p'\n"),
        ('mode = "online"  # soon\n', 'mode = "offline"  # soon\n'),
        ("project = 'p'\r\n 'mode'='online'\r\n", "project = 'p'\r\nmode = \"offline\"\r\n"),
        ('[tool]\nmode = "x"\n', 'mode = "offline"\n[tool]\nmode = "x"\n'),
        ('tags = [\n  "a",\n]\nmode = "disabled"', 'tags = [\n  "a",\n]\nmode = "offline"'),
    ],
)
def test_one_line_of_a_file_is_changed(before: str, after: str, tmp_path: Path) -> None:
    """Comments, order, other keys, line ends and permissions stay."""
    path = tmp_path / "flightlog.toml"
    path.write_bytes(before.encode())
    path.chmod(0o640)
    assert projectfile.change(tmp_path, "mode", "offline") == path
    assert path.read_bytes().decode() == after and path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", ['notes = """\nmode = "x"\n"""\n', "project = ", "\xff", "mode.a = 1\n"])
def test_a_file_that_cannot_be_edited_safely_is_refused(content: str, tmp_path: Path) -> None:
    """It stands as it was, and the error names it."""
    path = tmp_path / "flightlog.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"flightlog\.toml"):
        projectfile.change(tmp_path, "mode", "offline")
    assert path.read_bytes() == content.encode("latin-1")


def test_the_verbs_say_what_holds(tmp_path: Path) -> None:
    """Each writes its word, says if something else holds all the same, and `mode` shows why."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    assert quick("mode", home=home, cwd=work).out == "offline: no server is configured\n"
    said = quick("disabled", home=home, cwd=work)
    assert said.code == 0 and said.out == f'{work / "flightlog.toml"}: mode = "disabled"\n', said
    assert quick("mode", "--dir", work, home=home).out == f"disabled: {work / 'flightlog.toml'} says so\n"
    said = quick(
        "offline", home=home, cwd=work, FLIGHTLOG_MODE="online", FLIGHTLOG_BASE_URL=NEAR, FLIGHTLOG_API_KEY="k"
    )
    assert "runs are online here all the same: FLIGHTLOG_MODE says so" in said.out, said
    assert quick("online", "--dir", tmp_path / "none", home=home).code == 2
    (work / "flightlog.toml").write_text("mode = ")
    said = quick("online", home=home, cwd=work)
    assert said.code == 2 and "cannot be read as TOML" in said.err, said
