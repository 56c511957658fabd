"""Secrets on a command line do not get into a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.redact import (
    REDACTED,
    is_secret_name,
    redact_code,
    redact_command,
    redact_keys,
    redact_mapping,
    redact_text,
    secret_values,
)

SECRET = "S3CR3TvAluE9x"
NAMES = [
    "--api-key", "--api_key", "--apikey", "--apiKey", "--token", "--hf-token", "--auth-token", "--password", "--passwd",
    "--db.pw", "--pwd", "--pass", "--key", "--aws-secret-access-key", "--client_secret", "--credentials", "-token",
    "--accessToken", "--AWS_SESSION_TOKEN", "--admin-token", "--login-token", "--session-id", "--webhook-url", "--jwt",
    "--private-key", "--hub_token", "--tokenizer_auth_token", "--model.auth.token", "--optimizer.key",
]  # fmt: skip
HARMLESS = [
    "--num-tokens", "--max_tokens", "--tokenizer", "--tokens-per-second", "--vocab-tokens", "--pad-token-id",
    "--keep-last", "--mask-token", "--token-dim", "--numTokens", "--image-key", "--text_key",
    "--sort-key", "--multi-pass",
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
        f"github_pat_{SECRET}{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\nMIIE{SECRET}",
        f"postgres://user:pass/{SECRET}@db/runs",
        f"redis://:{SECRET}@cache:6379/0",
        f"host=db password='a {SECRET}' user=me",
        f"Server=db;Pwd={SECRET};Uid=me",
        f"Authorization: Token abc {SECRET}",
        f'curl -H "authorization: {SECRET}" https://host',
        f"Cookie: a=b; session={SECRET}",
        f"API_TOKEN={SECRET} python train.py",
        f"token=abc&{SECRET}",
        f'PASS="ab"{SECRET}',
        f'{{"password": "ab\\"{SECRET}"}}',
        f'{{\\"token\\": \\"ab {SECRET}\\"}}',
    ],
)
def test_secrets_inside_a_word(text: str) -> None:
    """Credentials in URLs and headers, in code given by -c, and keys of known shapes wherever they stand."""
    assert SECRET not in redact_text(text) and SECRET not in redact_command(["-c", text])[1]
    assert redact_command([f"--url={text}"]) != [f"--url={text}"]


@pytest.mark.parametrize(
    "text",
    [
        "https://host/path?a=1&b=2",
        "a=b",
        "model.lr=0.1",
        "user@host:/path",
        "s3://bucket/key",
        "C:\\data",
        "--x",
        "",
        "http://host:8080/@scope/x",
        "tokens per second: 3",
        "basic model",
        "max_tokens=100&lr=1",
        "{'tokenizer': 'gpt2'}",
    ],
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


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--secret", "--X9"], ["--secret", REDACTED]),
        (["--secret", "--token", SECRET], ["--secret", REDACTED, REDACTED]),
        (["--tokens", "A", "B", "--lr", "1"], ["--tokens", REDACTED, REDACTED, "--lr", "1"]),
        (["--api-keys", "A", "B", "C"], ["--api-keys", REDACTED, REDACTED, REDACTED]),
        (["--token", "A", "train.py"], ["--token", REDACTED, "train.py"]),
        (["--use-auth-token", "--lr", "1"], ["--use-auth-token", "--lr", "1"]),
        (["Authorization:", "Bearer", SECRET, "x"], ["Authorization:", REDACTED, REDACTED, "x"]),
        (["bearer", SECRET], ["bearer", REDACTED]),
        (["HF_TOKEN=A", "python"], [f"HF_TOKEN={REDACTED}", "python"]),
        (["--env", "HF_TOKEN=A"], ["--env", f"HF_TOKEN={REDACTED}"]),
        (["--num-tokens", "5", "--tokenizer", "gpt2"], ["--num-tokens", "5", "--tokenizer", "gpt2"]),
        (["--keep-last", "3", "--max_tokens", "100"], ["--keep-last", "3", "--max_tokens", "100"]),
    ],
)
def test_values_that_stand_apart(words: list[str], shown: list[str]) -> None:
    """Values that look like options, several values of one option, a header in several words; and no word too many."""
    assert redact_command(words) == shown


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(HARMLESS) | WORDS, max_size=3),
)
def test_no_value_of_a_secret_name_survives(names: list[str], prefix: str, before: list[str]) -> None:
    """Whatever it begins with, a dash or a quote, and whatever stands before it."""
    value = f"{prefix}{SECRET}"
    assert SECRET not in " ".join(redact_command([*before, *names, value]))
    name = names[0].lstrip("-")
    for text in (
        f"{name}={value}",
        f"{names[0]}={value}",
        json.dumps({name: value}),
        json.dumps({"a": [{name: value}]}),
    ):
        assert SECRET not in " ".join(redact_command([text])), text
        assert SECRET not in " ".join(redact_command(["-c", json.dumps(text)])), text
    nested: Any = {"model": {"layers": [{name: value}]}, name: {"user": value, "all": [value]}}
    assert SECRET not in json.dumps(redact_mapping(nested))


@pytest.mark.parametrize("name", HARMLESS)
def test_settings_that_merely_sound_secret_stay(name: str) -> None:
    """Numbers and texts, at any depth."""
    values = {name.lstrip("-"): 42, "nested": {name.lstrip("-"): "gpt2", "deeper": [{name.lstrip("-"): "x"}]}}
    assert redact_mapping(values) == values


def test_settings_lose_their_secrets_and_keep_their_shape() -> None:
    """Counts, switches and what is not set stay; names that the user allows stay as they are."""
    values = {
        "tokens": 3_000_000_000,
        "token": "abc",
        "use_auth_token": True,
        "password": 1234,
        "api_key": None,
        "credentials": {"user": "me", "port": 22, "pin": 1},
        "token_mixer": {"dim": 4, "name": "x"},
        "db": f"postgres://me:{SECRET}@host/x",
        "dsn": f"host=x password={SECRET}",
        "prompt": "Remember the key: patience. A token: one word.",
        "optimizer": {"key": "adam", "lr": 0.1},
    }
    shown = redact_mapping(values, allow=["optimizer.key"])
    assert shown == {
        "tokens": 3_000_000_000,
        "token": REDACTED,
        "use_auth_token": True,
        "password": REDACTED,
        "api_key": None,
        "credentials": {"user": REDACTED, "port": REDACTED, "pin": REDACTED},
        "token_mixer": {"dim": 4, "name": REDACTED},
        "db": f"postgres://{REDACTED}@host/x",
        "dsn": f"host=x password={REDACTED}",
        "prompt": values["prompt"],
        "optimizer": {"key": "adam", "lr": 0.1},
    }
    assert redact_mapping({"token": "abc"}, allow="TOKEN") == {"token": "abc"}
    assert redact_mapping({"note": f"it is {SECRET}"}, secrets=[SECRET]) == {"note": f"it is {REDACTED}"}
    assert redact_command(["--hub-token", "x", "--api-key=y"], allow=["hub_token", "api-key"])[1:] == [
        "x",
        "--api-key=y",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_secrets_in_lists_of_words_and_in_lines(name: str) -> None:
    """A config that holds a command, as words or as a line, loses what the command itself would lose, and no more."""
    values: dict[str, Any] = {
        "argv": ["run.py", name, SECRET, "--lr", "0.1", 3, None, name, 1234],
        "line": f"python run.py {name} {SECRET} --lr 0.1",
        "quoted": f"sh -c \"run {name} '{SECRET} more' \"",
        "as_json": json.dumps(["run.py", name, f"{SECRET} more", "--lr"]),
        "nested": [{"args": (name, SECRET)}],
    }
    shown = redact_mapping(values)
    assert SECRET not in json.dumps(shown) and "more" not in json.dumps(shown) and "1234" not in json.dumps(shown)
    assert shown["argv"][3:7] == ["--lr", "0.1", 3, None] and shown["line"].endswith(" --lr 0.1")
    assert redact_mapping(values, allow=[name]) == {**values, "nested": [{"args": [name, SECRET]}]}
    assert (
        SECRET not in redact_text(f"run {name} {SECRET}") and SECRET not in redact_command([f"run {name} {SECRET}"])[0]
    )


@pytest.mark.parametrize("name", HARMLESS)
def test_lines_and_lists_without_secrets_stay(name: str) -> None:
    """Options that merely sound like it, and sentences with dashes."""
    values = {
        "argv": ["run.py", name, "42", "-x", "basic", "model"],
        "line": f"run.py {name} 42 - not a key - and --use-auth-token yes",
        "words": ["token", "label", "key", "value"],
    }
    assert redact_mapping(values) == values


@pytest.mark.parametrize("name", ["wandb_api", "OPENAI_API", "access", "s3_access", "aws.access", "api", "accesskey"])
def test_names_that_may_be_a_keys(name: str) -> None:
    """Hidden, unless the value shows that it is none."""
    assert redact_mapping({name: SECRET}) == {name: REDACTED}
    if "key" not in name:
        harmless = {name: "https://host/v1", "nested": {name: "v2"}, "b": {name: True}}
        assert redact_mapping(harmless) == harmless
    if "_api" not in name.lower() and "key" not in name:
        assert redact_mapping({name: "read only"}) == {name: "read only"}


def test_variables_as_containers_have_them() -> None:
    """{"name": …, "value": …}: what the value is called stands beside it."""
    given = {"env": [{"name": "HF_TOKEN", "value": "abc"}, {"name": "LR", "value": "1"}]}
    shown = redact_mapping(given)
    assert shown == {"env": [{"name": "HF_TOKEN", "value": REDACTED}, {"name": "LR", "value": "1"}]}
    assert redact_mapping(given, allow=["hf_token"]) == given


def test_settings_that_hold_themselves() -> None:
    """They end where they begin again, however often."""
    loop: dict[str, Any] = {"lr": 0.1}
    loop["again"] = [loop, loop]
    loop["auth"] = loop
    assert redact_mapping(loop)["again"] == [REDACTED, REDACTED]


def test_values_of_secret_variables_are_secret_everywhere() -> None:
    """Those long enough to be told from a word."""
    environment = {"MY_API_KEY": SECRET, "DB_PASSWORD": "short", "MAX_TOKENS": "1234567890", "HOME": "/home/somebody"}
    assert secret_values(environment) == [SECRET]


def test_code_loses_keys_and_nothing_else() -> None:
    """Names and assignments stay: it is code."""
    code = f'token = get_token()\nkey = "hf_{SECRET}{SECRET}"\npassword: str\n'
    assert redact_keys(code) == f'token = get_token()\nkey = "{REDACTED}"\npassword: str\n'


def test_code_loses_credentials_of_urls_and_known_secrets() -> None:
    """What is put together from variables stays, and so does what is a word or a path whoever holds it for a secret."""
    lost = [f'db = "postgres://me:{SECRET}@host/x"', f"# https://{SECRET}{SECRET}@host", f"key = '{SECRET}'"]
    stays = [
        'url = f"https://{user}:{password}@{host}/"', "git+ssh://git@github.com/a/b", 'mode = "disabled"',
        'open("/home/me/key.json")', "http://host:8080/@scope/x", "https://%s:%s@host", "http://127.0.0.1:80/a@b",
    ]  # fmt: skip
    code = "\n".join([*lost, *stays])
    shown = redact_code(code, [SECRET, "disabled", "/home/me/key.json"]).splitlines()
    assert SECRET not in "\n".join(shown[:3]) and all(REDACTED in line for line in shown[:3]) and shown[3:] == stays


@pytest.mark.parametrize(
    "text",
    [
        "--token ",
        "-k -",
        "--tokens a ",
        '--key", ',
        "a",
        "://a:b",
        "a=b",
        "\\",
        "key=",
        '"',
        "authorization:",
        'token=\\"',
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "sk-",
        "a.",
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """Two hundred kilobytes of what expressions stumble over: quadratic time would meet the timeout."""
    redact_text(text * (200_000 // len(text)))
    redact_text(text * (200_000 // len(text)), prose=True)
    redact_code(text * (64_000 // len(text)))


def test_a_runs_command_is_redacted_in_journal_and_spec(script: Callable[..., Any], tmp_path: Path) -> None:
    """From the process's real command line, in every file that is written."""
    source = "import flightlog; flightlog.init(); flightlog.finish()"
    script(source, "--api-key", SECRET, "--data=x", f"--note={SECRET}y", FLIGHTLOG_API_KEY=f"{SECRET}y")
    for path in (tmp_path / "flightlog").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    command = json.loads((tmp_path / "flightlog" / "latest.spec").read_bytes())["command"]
    assert command[-4:] == ["--api-key", REDACTED, "--data=x", f"--note={REDACTED}"]
