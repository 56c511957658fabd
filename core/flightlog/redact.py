"""Keeping secrets out of what a run remembers: its command line, its environment, its settings.

What a value is called decides, as far as that goes: `--api-key X`, `HF_TOKEN=X`, `{"password": "X"}`. Beyond names,
keys of well-known services are told by their shape, and credentials by their place in a URL or header. In doubt a value
is hidden, but not what trainings are full of (`--max-tokens 100`, `--image-key pixels`). Not told apart: one-letter
options (`-p X`, `-u user:X`), and secrets that are neither named nor shaped like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    r"(?:^|[-_.+])(?:key|pat|auth|sig|login|cookies?|jwt|sas)$|session[-_.]?id$|token|authori[sz]ation|bearer|"
    r"[a-z0-9][-_.]api$"
)
# In settings only, where the value is seen: access: "public" is none, nor is some_api: "https://…" or "v2".
_DOUBTFUL = re.compile(r"(?:^|[-_.+])(?:api|access)$")
_PLAIN_WORD = re.compile(r"[a-z]{1,20}(?:[-_ ][a-z]{1,20}){0,3}|v?\d+(?:\.\d+)*|[a-z][a-z0-9+.-]{0,30}://\S*")
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
# An option within a text, and what is between it and its value: run --password X, ["--password", "X"].
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w.+-]{0,200}(?=[\s\\\"',])")
_GAP = re.compile(r"""\s*\\*["']\s*,\s*|\s*,\s*|\s+""")
# In code the credentials of a URL may be built from variables; and a user alone, as in ssh://git@host, is no secret.
_URL_IN_CODE = re.compile(
    rf"{_SCHEME}([^\s/?#@:\"']{{0,200}}:(?!\d+[/?#])[^\s\"'/]{{1,256}}|[\w-]{{20,200}})@", re.IGNORECASE
)
_BUILT = re.compile(r"[{}<>$]|%[sdr(]")
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


def redact_code(text: str, secrets: Iterable[str] = ()) -> str:
    """Return code or a patch without keys of known shapes, credentials in URLs, and texts known to be secret.

    Args:
        text: the code. secrets: as `secret_values` gives them; those that may as well be a word or a path stay.
    """
    for secret in secrets:
        if secret in text and not _is_common(secret):
            text = text.replace(secret, REDACTED)
    if "://" in text:
        text = _URL_IN_CODE.sub(lambda url: url[0] if _BUILT.search(url[2]) else f"{url[1]}{REDACTED}@", text)
    return redact_keys(text)


def _is_common(secret: str) -> bool:
    """Tell whether a variable's value is a word or path, TOKEN_MODE=disabled say, without which code is no code."""
    return bool(re.fullmatch(r"[a-z]{1,11}|[A-Z]{1,11}|[~.]{0,2}/.*|\d{1,9}", secret))


def redact_text(text: str, *, prose: bool = False, allow: Iterable[str] = ()) -> str:
    """Return `text` without credentials in URLs, values of secret-sounding names, and strings shaped like keys.

    Args:
        text: a word of a command line, a variable's value.
        prose: it may be a sentence, where "key: patience" gives nothing away.
        allow: names whose values may be shown.
    """
    return _redact_text(text, _NAME_IN_PROSE if prose else _NAME, _Allowed(allow))


def _redact_text(text: str, named: re.Pattern[str], allowed: _Allowed) -> str:
    text = redact_keys(_URL_CREDENTIALS.sub(rf"\1{REDACTED}@", text))
    text = _BEARER.sub(rf"\1 {REDACTED}", _HEADERS.sub(rf"\1{REDACTED}", text))
    return _hide_options(_hide_values(text, named, allowed), allowed)


def _hide_values(text: str, named: re.Pattern[str], allowed: _Allowed) -> str:
    shown: list[str] = []
    at = 0
    for name in named.finditer(text):
        secret = name.start() >= at and is_secret_name(name[1]) and name[1] not in allowed
        if secret and (value := _VALUE.match(text, name.end())):
            shown += [text[at : name.end()], REDACTED]
            at = value.end()
    return "".join([*shown, text[at:]])


def _hide_options(text: str, allowed: _Allowed) -> str:
    """Hide what stands behind a secret-sounding option, as `redact_command` does where the words are apart."""
    if "-" not in text:
        return text
    shown: list[str] = []
    at = 0
    for option in _OPTION.finditer(text):
        if option.start() < at:
            continue
        end, hiding = option.end(), _value_expected(option[0], allowed)
        while hiding != _NOTHING and (gap := _GAP.match(text, end)) and (value := _VALUE.match(text, gap.end())):
            word = value[0].strip("\\\"',[]")
            if hiding == _SOME and word.startswith("-"):
                break
            shown += [text[at : gap.end()], REDACTED]
            at = end = value.end()
            hiding = _still_hiding(hiding, _value_expected(word, allowed))
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
    return _hide_words(argv, lambda w: _value_expected(w, allowed), lambda w: _redact_word(w, known, allowed))


def _hide_words(words: Sequence[Any], expects: Callable[[str], int], show: Callable[[Any], Any]) -> list[Any]:
    """Return words with those replaced that belong to a secret-sounding one before them, the others as `show` has them.

    Args:
        words: texts; among settings other values, too. expects: tells of a text which words after it to hide.
    """
    shown: list[Any] = []
    hiding = _NOTHING
    for word in words:
        expected = expects(word) if isinstance(word, str) else _NOTHING
        if hiding == _NOTHING or (hiding == _SOME and isinstance(word, str) and word.startswith("-")):
            shown.append(show(word))
            hiding = expected
        else:
            shown.append(REDACTED)
            hiding = _still_hiding(hiding, expected)
    return shown


def _still_hiding(hiding: int, expected: int) -> int:
    """Return what to hide after a hidden word.

    It may as well have been an option, whose own value comes now; or "Bearer", with the key to come.
    """
    if expected != _NOTHING:
        return expected
    return {_ONE: _NOTHING, _FIRST: _SOME}.get(hiding, hiding)


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
    return _redact_text(word, _NAME, allowed)


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
    if _SOFT.search(name) and not (_DOUBTFUL.search(name) and _is_address(value)):
        return _hidden(value, hard=False, above=above)
    if isinstance(value, str):
        if _DOUBTFUL.search(name) and not _PLAIN_WORD.fullmatch(value):
            return _hidden(value, hard=False, above=above)
        for secret in known:
            value = value.replace(secret, REDACTED)
        return _redact_text(value, _NAME_IN_PROSE, allowed)
    if id(value) in above or len(above) > _MAX_DEPTH:
        return REDACTED
    above = (*above, id(value))
    if isinstance(value, Mapping):
        named = _name_of_value(value, allowed)
        return {
            k: _hidden(v, hard=True, above=above)
            if k == named
            else _redact_value(v, f"{path}.{k}", allowed, known, above)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return _hide_words(
            value,
            lambda word: _NOTHING if word.lower() == "basic" else _value_expected(word, allowed),  # a level, say
            lambda item: _redact_value(item, path, allowed, known, above),
        )
    return value


_MAX_DEPTH = 64


def _is_address(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"v?\d+(?:\.\d+)*|[a-z][a-z0-9+.-]{0,30}://\S*", value))


def _name_of_value(values: Mapping[Any, Any], allowed: _Allowed) -> str | None:
    """Return "value" where that is a secret's: {"name": "HF_TOKEN", "value": "…"}, as containers have variables."""
    name = values.get("name", values.get("key"))
    secret = isinstance(name, str) and is_secret_name(name) and name not in allowed
    return "value" if secret and "value" in values else None


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
