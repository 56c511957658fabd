"""Keeping secrets out of what a run remembers of its command line and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

REDACTED = "[redacted]"
_SECRET = re.compile(
    r"(?:api|access|private|secret|auth|signing|encryption)[-_]?key|(?:^|[-_.])(?:key|pw|pwd|pass|pat|auth|sig|login|cookie)$|"
    r"token|passw|passphrase|secret|credential|bearer",
    re.IGNORECASE,
)
_URL_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/?#\s]+@", re.IGNORECASE)
# A name and its value inside a word: ?token=…, {"api_key": "…"}, login(key='…')
_NAME = re.compile(r"""([\w.-]+)["']?\s*[=:]\s*""")
_VALUE = re.compile(r""""[^"]*"?|'[^']*'?|[^\s"'&]+""")
_BEARER = re.compile(r"\b(bearer|basic)\s+[^\s\"',]+", re.IGNORECASE)
# What keys of well-known services look like, wherever they stand.
_KEY_SHAPES = re.compile(
    r"\b(?:fl_[0-9a-z]{8,}_[0-9A-Za-z]{20,}|hf_\w{20,}|sk-[\w-]{20,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,})\b"
)
# Counts and switches that merely sound like secrets: --num-tokens 5, --tokenizer name.
_HARMLESS = re.compile(
    r"tokeni[sz]|(?:max|min|num|n|total|vocab|per|new|pad|eos|bos|unk|special|target|seen)[-_]?tokens?|tokens?[-_](?:per|id|count|len)",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Tell whether something of this name (an option, a variable, a config key) is likely to hold a secret."""
    return bool(_SECRET.search(_HARMLESS.sub("", name)))


def redact_text(text: str) -> str:
    """Return `text` without credentials in URLs, values of secret-sounding names, and strings shaped like keys."""
    text = _KEY_SHAPES.sub(REDACTED, _URL_CREDENTIALS.sub(rf"\1{REDACTED}@", text))
    return _hide_values(_BEARER.sub(rf"\1 {REDACTED}", text))


def _hide_values(text: str) -> str:
    shown: list[str] = []
    at = 0
    for name in _NAME.finditer(text):
        if name.start() >= at and is_secret_name(name[1]) and (value := _VALUE.match(text, name.end())):
            shown += [text[at : name.end()], REDACTED]
            at = value.end()
    return "".join([*shown, text[at:]])


def redact_command(argv: Sequence[str], secrets: Iterable[str] = ()) -> list[str]:
    """Return a command line with the values of secret-sounding options replaced.

    Args:
        argv: the command's words.
        secrets: texts that must not appear whatever they are called, such as the API key in use.
    """
    known = [s for s in secrets if len(s) >= 8]
    shown: list[str] = []
    hide_next = False
    for word in argv:
        if hide_next and not word.startswith("--"):
            shown.append(REDACTED)
            hide_next = False
            continue
        hide_next = False
        name, equals, _ = word.partition("=")
        if equals and is_secret_name(name.lstrip("-")):
            shown.append(f"{name}={REDACTED}")
            continue
        hide_next = not equals and word.startswith("-") and is_secret_name(word.lstrip("-"))
        for secret in known:
            word = word.replace(secret, REDACTED)
        shown.append(redact_text(word))
    return shown
