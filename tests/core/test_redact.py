"""Secrets on a command line do not get into a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.redact import REDACTED, is_secret_name, redact_command, redact_text

SECRET = "S3CR3TvAluE9x"
NAMES = [
    "--api-key", "--api_key", "--apikey", "--apiKey", "--token", "--hf-token", "--auth-token", "--password", "--passwd",
    "--db.pw", "--pwd", "--pass", "--key", "--aws-secret-access-key", "--client_secret", "--credentials", "-token",
    "--private-key", "--hub_token", "--tokenizer_auth_token", "--model.auth.token", "--optimizer.key",
]  # fmt: skip
HARMLESS = [
    "--num-tokens", "--max_tokens", "--tokenizer", "--tokens-per-second", "--vocab-tokens", "--pad-token-id",
    "--keyboard", "--lr", "--monkey", "--tokenize", "--eos_token", "--max-new-tokens",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_secret_sounding_options_lose_their_value(name: str) -> None:
    """With a space, with "=", and in Hydra's spelling without dashes."""
    for words in (
        [name, SECRET],
        [f"{name}={SECRET}"],
        [f"{name.lstrip('-')}={SECRET}"],
        [f"+{name.lstrip('-')}={SECRET}"],
        [f"{name}='{SECRET}'"],
        [f"--config={{{name.lstrip('-')}: {SECRET}}}"],
        [f'{{"{name.lstrip("-")}": "{SECRET} with more"}}'],
    ):
        shown = redact_command(["train.py", *words, "--lr", "0.1"])
        assert SECRET not in " ".join(shown) and "with more" not in " ".join(shown)
        assert REDACTED in " ".join(shown) and [shown[0], *shown[-2:]] == ["train.py", "--lr", "0.1"]


@pytest.mark.parametrize("name", HARMLESS)
def test_counts_and_switches_stay(name: str) -> None:
    """What merely sounds like a secret is what people want to see in a run."""
    assert redact_command([name, "42"]) == [name, "42"] and redact_command([f"{name}=42"]) == [f"{name}=42"]
    assert not is_secret_name(name.lstrip("-"))


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/x",
        f"https://user:p@{SECRET}@host/x",
        f"postgresql+psycopg://{SECRET}@db:5432/runs",
        f"https://host/path?a=1&token={SECRET}&b=2",
        f"https://host/?api_key={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"import x; x.login(key='{SECRET}', verbose=1)",
        f"export FLIGHTLOG_API_KEY={SECRET}; run",
        f"hf_{SECRET}{SECRET}",
        f"sk-{SECRET}{SECRET}",
        f"ghp_{SECRET}{SECRET}",
        f"fl_abcdefgh_{SECRET}{SECRET}",
    ],
)
def test_secrets_inside_a_word(text: str) -> None:
    """Credentials in URLs and headers, in code given by -c, and keys of known shapes wherever they stand."""
    assert SECRET not in redact_text(text) and SECRET not in redact_command(["-c", text])[1]
    assert redact_command([f"--url={text}"]) != [f"--url={text}"]


@pytest.mark.parametrize(
    "text",
    ["https://host/path?a=1&b=2", "a=b", "model.lr=0.1", "user@host:/path", "s3://bucket/key", "C:\\data", "--x", ""],
)
def test_ordinary_words_stay_as_they_are(text: str) -> None:
    """Nothing is hidden that is no secret."""
    assert redact_command([text, text]) == [text, text]


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="-"), max_size=12)


@given(st.lists(WORDS, max_size=4), st.sampled_from(NAMES), st.lists(WORDS, max_size=4), st.booleans())
def test_a_planted_secret_never_shows(before: list[str], name: str, after: list[str], joined: bool) -> None:
    """Between any other words."""
    planted = [f"{name}={SECRET}"] if joined else [name, SECRET]
    assert SECRET not in " ".join(redact_command([*before, *planted, *after]))


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(0, 4), st.text(max_size=5))
def test_the_key_in_use_never_shows(words: list[str], at: int, glue: str) -> None:
    """What is known to be secret is hidden in any place, under any name."""
    words.insert(at, f"{glue}{SECRET}{glue}")
    assert SECRET not in " ".join(redact_command(words, secrets=[SECRET, "short"]))


def test_a_runs_command_is_redacted_in_journal_and_spec(script: Callable[..., Any], tmp_path: Path) -> None:
    """From the process's real command line, in every file that is written."""
    source = "import flightlog; flightlog.init(); flightlog.finish()"
    script(source, "--api-key", SECRET, "--data=x", f"--note={SECRET}y", FLIGHTLOG_API_KEY=f"{SECRET}y")
    for path in (tmp_path / "flightlog").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    command = json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["command"]
    assert command[-4:] == ["--api-key", REDACTED, "--data=x", f"--note={REDACTED}"]
