"""Addresses of servers: what of them a key is bound to, and whether they lie on this machine.

Apart from the client, which needs an HTTP library: a training asks for no more than this.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from .errors import PermanentError
from .terminal import without_keys


def origin_of(url: str) -> str:
    """Return the scheme://host[:port] of an address, in lower case, without the port that goes without saying.

    Raises:
        PermanentError: it is no http or https address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if without_keys(url) != url:
        raise PermanentError(
            f"{without_keys(_shown(url))!r} is an API key where a server's address belongs: that is "
            "http://HOST:PORT or https://HOST, and FLIGHTLOG_API_KEY or `flightlog login` is for the key"
        )
    if "@" in url:
        raise PermanentError(
            f"the address {_shown(url)!r} was given with a user or a password; flightlog signs in by a key: leave out "
            "what stands before the @, and keep the API key by `flightlog login`"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise PermanentError(f"{_shown(url)!r}: a server's address is http://HOST:PORT or https://HOST, without a path")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError(f"{_shown(url)!r} is no address of a server; http://HOST:PORT or https://HOST is needed")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != usual else "")


def _shown(url: str) -> str:
    """Return an address without what may be a password in it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"[:200]


def is_loopback(origin: str) -> bool:
    """Tell whether an origin is on this machine."""
    import ipaddress

    host = urlsplit(origin).hostname or ""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
