"""Names that end up in folder names and URLs, and the random ones flightlog makes itself."""

from __future__ import annotations

import os
import unicodedata

from ..errors import UsageError

# Crockford's base 32 in lower case: no letter that is mistaken for a digit. https://www.crockford.com/base32.html
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_FORBIDDEN = set('/\\:#?%*"<>|')
MAX_NAME = 128


def random_name(bits: int) -> str:
    """Return a random name of `bits` bits (a multiple of 5) from os.urandom: seeded generators repeat across jobs."""
    return name_from_bytes(os.urandom((bits + 7) // 8), bits)


def name_from_bytes(source: bytes, bits: int) -> str:
    """Return the name of `bits` bits (a multiple of 5) that the beginning of `source` makes."""
    value = int.from_bytes(source[: (bits + 7) // 8], "big")
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in range(bits // 5))


def new_run_id() -> str:
    """Return a new run id: 60 random bits, 12 characters."""
    return random_name(60)


def new_writer_name() -> str:
    """Return a new writer's name: 80 random bits, 16 characters."""
    return random_name(80)


def name_fault(value: object) -> str | None:
    """Say what keeps `value` from being a run id, project, workspace or artifact name; None when nothing does."""
    if not isinstance(value, str) or not value:
        return "it must be a text that is not empty"
    if len(value) > MAX_NAME or len(value.encode("utf-8", "replace")) > 200:
        return f"it is longer than {MAX_NAME} characters"
    if value != value.strip() or value.startswith((".", "~", "-")):
        return 'it must not begin with ".", "~", "-" or a space, nor end with a space'
    bad = sorted({c for c in value if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp")})
    if bad:
        return f"it must not contain {' '.join(ascii(c) for c in bad)}"
    return None


def is_writer(folder: str) -> bool:
    """Tell whether a folder of this name may be a writer's; with a "~" it would be a branch, of servers alone."""
    return name_fault(folder) is None and "~" not in folder


def checked_name(what: str, value: object) -> str:
    """Return `value` if it can be the name of a `what`.

    Raises:
        UsageError: it cannot; the text says why.
    """
    fault = name_fault(value)
    if fault:
        raise UsageError(f"{what} {value!r}: {fault}")
    return str(value)


_QUALITIES = [
    "amber",
    "ample",
    "brisk",
    "calm",
    "clear",
    "coral",
    "crisp",
    "dapper",
    "eager",
    "early",
    "fabled",
    "fleet",
    "gentle",
    "golden",
    "hardy",
    "high",
    "keen",
    "level",
    "lucid",
    "mellow",
    "nimble",
    "noble",
    "polar",
    "quiet",
    "rapid",
    "sable",
    "silver",
    "steady",
    "sunny",
    "tidal",
    "vivid",
    "warm",
]
_BIRDS = [
    "albatross",
    "avocet",
    "bunting",
    "condor",
    "crane",
    "curlew",
    "dunlin",
    "eagle",
    "egret",
    "falcon",
    "fulmar",
    "gannet",
    "godwit",
    "harrier",
    "heron",
    "hobby",
    "ibis",
    "kestrel",
    "kite",
    "lapwing",
    "martin",
    "merlin",
    "osprey",
    "petrel",
    "plover",
    "puffin",
    "shrike",
    "skua",
    "swallow",
    "swift",
    "tern",
    "wagtail",
]


def friendly_name(run_id: str) -> str:
    """Return a name that people can say, the same for the same run id on every rank and machine."""
    import hashlib

    digest = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).digest()
    return f"{_QUALITIES[digest[0] % 32]}-{_BIRDS[digest[1] % 32]}-{digest[2]:03d}"
