"""Keeping secrets out of what a run remembers of its command line and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

REDACTED = "[redacted]"
_SECRET = re.compile(
    r"(?:api|access|private|secret|auth|signing|encryption)[-_]?key|(?:^|[-_])(?:key|pw|pat)$|"
    r"token|passw|passphrase|secret|credential|bearer",
    re.IGNORECASE,
)
_URL_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
# What keys of well-known services look like, wherever they stand.
_KEY_SHAPES = re.compile(
    r"\b(?:fl_[0-9a-z]{8,}_[0-9A-Za-z]{20,}|hf_\w{20,}|sk-[\w-]{20,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16})\b"
)
# Counts and switches that merely sound like secrets: --num-tokens 5, --tokenizer name.
_HARMLESS = re.compile(
    r"tokeni[sz]|(?:max|min|num|n|total|vocab|per|new|pad|eos|bos|unk|special|target|seen)[-_]?tokens?|tokens?[-_](?:per|id|count|len)",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Tell whether something of this name (an option, a variable, a config key) is likely to hold a secret."""
    return bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def redact_text(text: str) -> str:
    """Return `text` without the credentials in its URLs and without strings shaped like keys."""
    return _KEY_SHAPES.sub(REDACTED, _URL_CREDENTIALS.sub(rf"\1{REDACTED}@", text))


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
