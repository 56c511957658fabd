"""Keeping secrets out of what a run remembers: its command line, its environment, its settings.

What a value is called decides, as far as that goes: `--api-key X`, `HF_TOKEN=X`, `{"password": "X"}`. Beyond names,
keys of well-known services are told by their shape, and credentials by their place in a URL or header. In doubt a value
is hidden, but not what trainings are full of (`--max-tokens 100`, `--image-key pixels`). Not told apart: one-letter
options (`-p X`, `-u user:X`), and secrets that are neither named nor shaped like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"
MIN_SECRET = 8

_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Secrets whatever their value, and those that are texts: a number of this name is a count.
_HARD = re.compile(
    r"passw|passphrase|passcode|secret|credential|webhook|conn(?:ection)?[-_.]?str(?:ing)?(?![a-z])|"
    r"(?:^|[-_.+])(?:pw|pwd|pass|otp)$"
)
_SOFT = re.compile(
    r"(?:api|access|private|auth|signing|encryption|session|license|account|subscription|ssh|master)[-_.]?keys?(?![a-z])|"
    r"(?:^|[-_.+])(?:key|pat|auth|sig|login|cookies?|jwt|sas)$|session[-_.]?id$|token|authori[sz]ation|bearer"
)
# Counts, columns and switches that merely sound like secrets: --num-tokens 5, --tokenizer name, --text-key prompt.
_HARMLESS = re.compile(
    r"tokeni[sz][a-z]*|"
    r"(?<![a-z0-9])(?:max|min|num|n|nb|total|vocab|per|new|pad|eos|bos|unk|cls|sep|mask|special|target|seen|train|eval|batch|"
    r"seq|context|prompt|completion|input|output|image|audio|video|start|end|stop|next|first|last|ignore|extra|added)"
    r"[-_.]?tokens?(?![a-z0-9])|"
    r"tokens?[-_.](?:per|ids?|count|len|length|types?|dim|dropout|embed[a-z]*|level|budget|limit|ratio|weights?|loss|seen)"
    r"(?![a-z])|"
    r"(?<![a-z0-9])(?:image|text|label|input|output|target|sort|group|metric|monitor|state|prompt|response|column|feature|"
    r"primary|foreign|reward|rng|prng|audio|video|caption|cache|mask|obs|action)[-_.]?key(?![a-z0-9])|"
    r"(?<![a-z0-9])(?:num|one|two|single|multi|forward|backward|first|second|per)[-_.]?pass$"
)
# --use-auth-token is a switch: what follows is another option.
_SWITCH = re.compile(r"^(?:use|no|with|without|enable|disable|require|skip|has|is|allow|trust)[-_]")
_SEVERAL = re.compile(r"(?:tokens|keys|passwords|secrets|credentials|cookies)$")

_SCHEME = r"([a-z][a-z0-9+.-]{0,30}://)"
_URL_CREDENTIALS = re.compile(
    # user:password@, where the password may hold any sign (but host:8080/@scope is none), or a bare key@
    rf"{_SCHEME}(?:[^\s/?#@:\"']{{0,200}}:(?!\d+[/?#])[^\s\"']{{0,256}}|[^/?#\s]{{1,500}})@",
    re.IGNORECASE,
)
_HEADERS = re.compile(r"(\b(?:authorization|cookie)\\*[\"']?\s*[:=]\s*\\*[\"']?)[^\"'\\\r\n]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[^\s\"',]+", re.IGNORECASE)
# A name and its value inside a word: ?token=…, {"api_key": "…"}, login(key='…'), {\"token\": \"…\"}
_NAME = re.compile(r"""(?<![\w.+-])([\w.+-]+)\\*["']?\s*[=:]\s*""")
# In prose a colon means little ("the key: patience"): there a name is followed by "=" or stands in quotes.
_NAME_IN_PROSE = re.compile(r"""(?<![\w.+-])([\w.+-]+)(?:\\*["']\s*:\s*|\\*["']?=)""")
_VALUE = re.compile(
    r"""(?:(\\+)(["']).*?(?:(?<!\\)\1\2|\Z)"""
    r"""|"(?:[^"\\]|\\.)*"?"""
    r"""|'(?:[^'\\]|\\.)*'?)[^\s,;&)}\]]*"""
    r"""|(?:[^\s&]|&(?![\w.-]+=))+""",
    re.DOTALL,
)
# What keys of well-known services look like, wherever they stand.
_KEY_SHAPES = re.compile(
    r"\b(?:fl_[0-9a-z]{8,}_[0-9A-Za-z]{20,}|hf_\w{20,}|sk-[\w-]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|npm_\w{30,}|pypi-[\w-]{50,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_PRIVATE_KEY_END = "PRIVATE KEY-----"


def is_secret_name(name: str) -> bool:
    """Tell whether something of this name (an option, a variable, a config key) is likely to hold a secret."""
    plain = _plain_name(name)
    return bool(_HARD.search(plain) or _SOFT.search(plain))


def _plain_name(name: str) -> str:
    return _HARMLESS.sub("", _CAMEL_HUMP.sub("_", name[:1000]).lower())


def redact_keys(text: str) -> str:
    """Return a text, code for example, without strings shaped like the keys of well-known services."""
    return _KEY_SHAPES.sub(REDACTED, _without_private_keys(text) if "-----BEGIN " in text else text)


def _without_private_keys(text: str) -> str:
    shown: list[str] = []
    at = 0
    while begin := _PRIVATE_KEY.search(text, at):
        end = text.find(_PRIVATE_KEY_END, begin.end())
        shown += [text[at : begin.start()], REDACTED]
        at = end + len(_PRIVATE_KEY_END) if end >= 0 else len(text)
    return "".join([*shown, text[at:]])


def redact_text(text: str, *, prose: bool = False) -> str:
    """Return `text` without credentials in URLs, values of secret-sounding names, and strings shaped like keys.

    Args:
        text: a word of a command line, a variable's value.
        prose: it may be a sentence, where "key: patience" gives nothing away.
    """
    text = redact_keys(_URL_CREDENTIALS.sub(rf"\1{REDACTED}@", text))
    text = _BEARER.sub(rf"\1 {REDACTED}", _HEADERS.sub(rf"\1{REDACTED}", text))
    return _hide_values(text, _NAME_IN_PROSE if prose else _NAME)


def _hide_values(text: str, named: re.Pattern[str]) -> str:
    shown: list[str] = []
    at = 0
    for name in named.finditer(text):
        if name.start() >= at and is_secret_name(name[1]) and (value := _VALUE.match(text, name.end())):
            shown += [text[at : name.end()], REDACTED]
            at = value.end()
    return "".join([*shown, text[at:]])


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of secret-sounding variables: what must not appear anywhere, whatever it is called there."""
    values = {value for name, value in environment.items() if len(value) >= MIN_SECRET and is_secret_name(name)}
    return sorted(values, key=len, reverse=True)


def redact_command(argv: Sequence[str], secrets: Iterable[str] = (), allow: Iterable[str] = ()) -> list[str]:
    """Return a command line with the values of secret-sounding options replaced.

    Args:
        argv: the command's words.
        secrets: texts that must not appear whatever they are called, such as the API key in use.
        allow: names of options whose values may be shown.
    """
    known = sorted((s for s in secrets if len(s) >= MIN_SECRET), key=len, reverse=True)
    allowed = _Allowed(allow)
    shown: list[str] = []
    hiding = _NOTHING
    for word in argv:
        expected = _value_expected(word, allowed)
        if hiding == _NOTHING or (hiding == _SOME and word.startswith("-")):
            shown.append(_redact_word(word, known, allowed))
            hiding = expected
            continue
        shown.append(REDACTED)
        # The hidden word may as well have been an option, whose own value comes now; or "Bearer", with the key to come.
        if expected != _NOTHING:
            hiding = expected
        elif hiding == _ONE:
            hiding = _NOTHING
        elif hiding == _FIRST:
            hiding = _SOME
    return shown


# What to do with the next word: nothing; hide it; hide it and what follows up to an option; hide all up to an option.
_NOTHING, _ONE, _FIRST, _SOME = range(4)


def _value_expected(word: str, allowed: _Allowed) -> int:
    """Tell which words after this one belong to it and are secret."""
    if word.lower() in ("bearer", "basic"):
        return _ONE
    name = word.lstrip("-")
    if name.endswith((":", "=")) and is_secret_name(name[:-1]) and name[:-1] not in allowed:
        return _ONE
    if not word.startswith("-") or "=" in word or ":" in word or _SWITCH.match(name.lower()):
        return _NOTHING
    if not is_secret_name(name) or name in allowed:
        return _NOTHING
    return _FIRST if _SEVERAL.search(name.lower()) else _ONE


def _redact_word(word: str, known: Sequence[str], allowed: _Allowed) -> str:
    name, equals, _ = word.partition("=")
    if equals and name.lstrip("-+") in allowed:
        return word
    if equals and is_secret_name(name.lstrip("-")):
        return f"{name}={REDACTED}"
    for secret in known:
        word = word.replace(secret, REDACTED)
    return redact_text(word)


def redact_mapping(values: Mapping[str, Any], allow: Iterable[str] = (), secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Return settings without their secrets: nested mappings and lists of plain values are gone through.

    Under a secret-sounding name texts are replaced; numbers only where the name leaves no doubt (`password`), for
    `tokens: 3000000` is a count. Other texts lose credentials in URLs, `password=…`, and strings shaped like keys.

    Args:
        values: the settings; they are not changed.
        allow: names that may be shown, as a last part ("key") or whole ("optimizer.key").
        secrets: texts that must not appear whatever they are called.
    """
    allowed = _Allowed(allow)
    known = sorted((s for s in secrets if len(s) >= MIN_SECRET), key=len, reverse=True)
    return {name: _redact_value(value, str(name), allowed, known, (id(values),)) for name, value in values.items()}


def _redact_value(value: Any, path: str, allowed: _Allowed, known: Sequence[str], above: tuple[int, ...]) -> Any:
    if path in allowed:
        return value
    name = _plain_name(path.rpartition(".")[2])
    if _HARD.search(name):
        return _hidden(value, hard=True, above=above)
    if _SOFT.search(name):
        return _hidden(value, hard=False, above=above)
    if isinstance(value, str):
        for secret in known:
            value = value.replace(secret, REDACTED)
        return redact_text(value, prose=True)
    if id(value) in above or len(above) > _MAX_DEPTH:
        return REDACTED
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {k: _redact_value(v, f"{path}.{k}", allowed, known, above) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(v, path, allowed, known, above) for v in value]
    return value


_MAX_DEPTH = 64


def _hidden(value: Any, *, hard: bool, above: tuple[int, ...]) -> Any:
    """Return what may be seen of a secret: that there is one, and the shape of a mapping that is called like one."""
    if value is None or isinstance(value, bool) or value == "" or (isinstance(value, int | float) and not hard):
        return value
    if isinstance(value, Mapping) and id(value) not in above and len(above) <= _MAX_DEPTH:
        above = (*above, id(value))
        return {k: _hidden(v, hard=hard or _is_hard(str(k)), above=above) for k, v in value.items()}
    return REDACTED


def _is_hard(name: str) -> bool:
    return bool(_HARD.search(_plain_name(name)))


class _Allowed:
    """The names that may be shown; "-", "_" and case make no difference."""

    def __init__(self, names: Iterable[str]) -> None:
        words = [names] if isinstance(names, str) else names
        self._names = {_same(word) for word in words}

    def __contains__(self, name: str) -> bool:
        return bool(self._names) and not self._names.isdisjoint((_same(name), _same(name).rpartition(".")[2]))


def _same(name: str) -> str:
    return str(name).lstrip("-").lower().replace("-", "_")
