r"""One record, one line of JSON (docs/format.md).

    {"seq":17,"t":1732398301.123456,"kind":"log","step":4,"data":{"loss":0.3},"crc":"9f3a01c2"}\n

The CRC-32 covers the line's bytes before the 18-byte tail `,"crc":"9f3a01c2"}`, so a reader checks a line without
parsing it, and `jq` reads it without knowing of checks.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

MAX_LINE = 1 << 20
TAIL = 18
HEAD = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"t":([0-9]{1,15}\.[0-9]{1,9}),"kind":"([a-z_]{1,32})"')
# A writer nests no deeper, and no key of a training has so many dots; what else comes is left as it is.
_MAX_PARTS = 256
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Record(NamedTuple):
    """A record as read from a journal. `line` is the line itself, newline included."""

    seq: int
    t: float
    kind: str
    step: int | None
    data: dict[str, Any]
    line: bytes


class Line(NamedTuple):
    """A line that has passed its check, with its header read and its data not yet parsed."""

    seq: int
    t: float
    kind: str
    raw: bytes

    def record(self) -> Record:
        """Parse the whole line. Raises ValueError where it is not what a record looks like."""
        return decode(self.raw)


def encode(seq: int, t: float, kind: str, body: bytes) -> bytes:
    """Return a line. `body` is the inside of the object after the kind, such as `"step":4,"data":{"loss":0.3}`."""
    line = b'{"seq":%d,"t":%.6f,"kind":"%b",%b' % (seq, t, kind.encode(), body)
    return b'%b,"crc":"%08x"}\n' % (line, zlib.crc32(line))


def encode_log(seq: int, t: float, step: int, data: Mapping[str, Any]) -> bytes:
    """Return the line of a log record of plain numbers: this is what a training waits for.

    Raises:
        TypeError: a value is none that orjson knows.
    """
    inside = orjson.dumps({"seq": seq, "t": t, "kind": "log", "step": step, "data": data})[:-1]
    return inside + b',"crc":"%08x"}\n' % zlib.crc32(inside)


def body(data: bytes, step: int | None = None, nonfinite: list[str] | None = None) -> bytes:
    """Return the body of a record from its encoded data; `nonfinite` names the keys written as "NaN" and the like."""
    head = b'"data":%b' % data if step is None else b'"step":%d,"data":%b' % (step, data)
    return head + b',"nonfinite":%b' % orjson.dumps(nonfinite) if nonfinite else head


def check(raw: bytes) -> Line | None:
    """Return the line if it is whole and its CRC is right, else None. `raw` includes the newline."""
    if len(raw) > MAX_LINE or len(raw) < TAIL + 2 or raw[-1] != 0x0A:
        return None
    inside, tail = raw[: -TAIL - 1], raw[-TAIL - 1 : -1]
    if tail[:8] != b',"crc":"' or tail[-2:] != b'"}' or tail[8:16] != b"%08x" % zlib.crc32(inside):
        return None
    head = HEAD.match(inside)
    if head:
        return Line(int(head[1]), float(head[2]), head[3].decode(), raw)
    try:  # another writer's spelling of the same format: other order, spaces, exponents
        whole = orjson.loads(raw)
        seq, t, kind = whole["seq"], whole["t"], whole["kind"]
    except (ValueError, KeyError, TypeError):
        return None
    if not (type(seq) is int and 0 < seq < 10**18 and type(t) in (int, float) and abs(t) < 1e15):
        return None
    if not isinstance(kind, str):
        return None
    return Line(seq, float(t), kind, raw)


def decode(raw: bytes) -> Record:
    """Parse a checked line, with NaN and the infinities restored.

    Raises:
        ValueError, TypeError, KeyError: it is not JSON or lacks a field, whatever its CRC says.
    """
    whole = orjson.loads(raw)
    if type(whole["seq"]) is not int or not isinstance(whole["kind"], str):
        raise ValueError("a record's seq is an integer and its kind a text")
    data = whole.get("data", {})
    step = whole.get("step")
    if not isinstance(data, dict) or not (step is None or type(step) is int):
        raise ValueError("a record's data is an object and its step an integer")
    nonfinite = whole.get("nonfinite", [])
    for path in nonfinite if isinstance(nonfinite, list) else []:
        restore(data, path)
    return Record(whole["seq"], float(whole["t"]), whole["kind"], step, data, raw)


def restore(data: Any, path: str) -> None:
    """Put the float back at `path` (keys joined by "."; a key may itself hold dots, the longest that fits counts)."""
    if isinstance(path, str) and path.count(".") < _MAX_PARTS:
        _restore(data, path.split("."))


def _restore(data: Any, parts: list[str]) -> bool:
    for i in range(len(parts), 0, -1):
        key: Any = ".".join(parts[:i])
        if isinstance(data, list):
            key = int(key) if len(key) < 8 and key.isdecimal() and int(key) < len(data) else None
        elif not (isinstance(data, dict) and key in data):
            key = None
        if key is None:
            continue
        if i < len(parts):
            if _restore(data[key], parts[i:]):
                return True
        elif isinstance(data[key], str) and data[key] in _NONFINITE:
            data[key] = _NONFINITE[data[key]]
            return True
    return False
