"""The page: built assets, and index.html for every address that the page itself understands."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from ..errors import not_found

STATIC = Path(__file__).parent.parent / "static"
router = APIRouter(include_in_schema=False)
_NO_PAGE = """This flightlog server was installed without its page: it is built with packages from the npm registry,
which could not be reached then. The API and `flightlog sync` work; reinstall where the registry can be reached.
"""


def assets() -> StaticFiles | None:
    """Return the app that serves the built assets, None where the page was not built."""
    return StaticFiles(directory=STATIC / "assets") if (STATIC / "assets").is_dir() else None


def _beside() -> set[str]:
    return {entry.name for entry in STATIC.iterdir() if entry.is_file()} if STATIC.is_dir() else set()


@router.get("/{path:path}")
def page(path: str, request: Request) -> Response:
    """The page, whichever of its addresses was asked for."""
    if path.startswith(("api/", "assets/")) or path == "api":
        raise not_found(f"address /{path}")
    # Files beside index.html: an icon, the theme's script. They are looked up in a listing, never opened by their name.
    if path in _beside():
        return FileResponse(STATIC / path)
    index = STATIC / "index.html"
    if not index.is_file():
        return PlainTextResponse(_NO_PAGE, status_code=503)
    return FileResponse(index, headers={"Cache-Control": "no-cache"})
