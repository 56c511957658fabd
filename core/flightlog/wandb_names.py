"""Names of the `wandb` module that scripts touch, so that `import flightlog as wandb` runs them.

What fits does what it does there; what does not says once what to use instead. Of media that have no form here a value
can be made all the same: it costs its key at `log()`, with that line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import terminal
from .errors import FlightlogError, KeyNeeded, ServerError, UsageError
from .origin import is_loopback
from .terminal import warn_once

if TYPE_CHECKING:
    from .media import Media

_CONSOLE = {"wrap_raw": "wrap", "wrap_emu": "wrap", "auto": "wrap", "redirect": "fd"}
# What of wandb.Settings is an argument of init(), by the name that it has there.
_ARGUMENTS = {
    "mode": "mode", "project": "project", "entity": "workspace", "workspace": "workspace", "root_dir": "dir",
    "dir": "dir", "run_id": "id", "run_name": "name", "run_group": "group", "run_job_type": "job_type",
    "run_tags": "tags", "run_notes": "notes", "resume": "resume", "resume_from": "resume_from", "console": "console",
    "save_code": "save_code", "code_dir": "save_code", "x_stats_sampling_interval": "system_interval",
    "_stats_sample_rate_seconds": "system_interval", "name": "name", "id": "id", "tags": "tags", "notes": "notes",
    "group": "group", "job_type": "job_type", "system_interval": "system_interval", "durability": "durability",
    "allow_secrets": "allow_secrets",
}  # fmt: skip
# Switches that turn something off: by name, the argument and what it becomes.
_OFF = {
    "x_disable_stats": ("system_interval", 0), "_disable_stats": ("system_interval", 0),
    "disable_code": ("save_code", False),
}  # fmt: skip
# Matters of how wandb does its work, of which nothing is to be said.
_SILENT = frozenset((
    "start_method", "init_timeout", "quiet", "silent", "show_info", "show_warnings", "show_errors", "program", "host",
    "api_key", "login_timeout", "summary_timeout", "finish_timeout",
))  # fmt: skip

_UNSUPPORTED = {
    "Object3D": "point clouds and meshes have no view here; keep the file with log_artifact(), or log an Image of it",
    "Molecule": "molecules have no view here; keep the file with log_artifact(), or log an Image of it",
    "Graph": "graphs have no view here; log str(model) as a Text",
    "JoinedTable": "tables are not joined here; make one Table of both",
    "PartitionedTable": "tables have no parts here; log one Table",
    "Bokeh": "Bokeh's figures have no view here; log an Html of bokeh.embed.file_html(…)",
}


class Settings(dict[str, Any]):
    """Settings for `init(settings=…)`, by the names of wandb.Settings or those of init()'s own arguments.

    Arguments of init() win over them. What has no counterpart is named once and ignored; an `api_key` is never kept.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"these settings have no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def init_arguments(given: object) -> dict[str, Any]:
    """Return what `init(settings=)` was given as arguments of init().

    Raises:
        UsageError: it is no mapping of settings.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"init(settings=): a mapping or flightlog.Settings, not {type(given).__name__}")
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in _SILENT:
            continue
        if name in _OFF:
            if value:
                argument, off = _OFF[name]
                found[argument] = off
        elif name in _ARGUMENTS:
            found[_ARGUMENTS[name]] = _CONSOLE.get(value, value) if name == "console" else value
        else:
            warn_once(
                f"setting {name}", f"init(settings={{{name!r}: …}}) has no counterpart in flightlog and is ignored."
            )
    return found


def login(
    key: str | None = None,
    relogin: bool | None = None,
    host: str | None = None,
    force: bool | None = None,
    timeout: int | None = None,
    verify: bool = False,
    anonymous: str | None = None,
) -> bool:
    """Keep an API key for a server, as `flightlog login` does; without one, tell whether one is known.

    A run needs no sign-in: nothing is asked here, no connection is opened, and nothing is raised.

    Args:
        key: a key of a flightlog server ("fl_…"). Any other is neither kept nor sent anywhere.
        host: the server's address; without it, the one of the settings, or of the last login.
        relogin, force, timeout, verify, anonymous: without meaning here.

    Returns:
        Whether a key for the server is known.
    """
    from . import keys, settings

    try:
        server = keys.choose_server(settings.load(), host)
        if key is not None and not str(key).startswith("fl_"):
            warn_once(
                "login key", "login(key=): that is no key of a flightlog server; it is neither kept nor sent anywhere."
            )
            key = None
        elif key is not None:
            insecure = keys.insecure_ok(server.origin)
            if not server.trusted or not (
                server.origin.startswith("https://") or is_loopback(server.origin) or insecure
            ):
                raise KeyNeeded(
                    f"no key is kept for {server.origin} unasked; `flightlog login {server.origin}` does that"
                )
            keys.store(server.origin, keys.checked(key), insecure=insecure, use_keyring=False)
        keys.key_at_hand(server)
    except FlightlogError as error:
        if key is not None:
            warn_once(f"login {error}", f"login(): {error}")
        return False
    except OSError as error:
        warn_once("login", f"login(): the key cannot be kept: {error}")
        return False
    return True


def termlog(string: str = "", newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Print a line on stderr; `repeat=False`: not the same one again."""
    _tell("", string, repeat)


def termwarn(string: str, newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Print a warning on stderr; `repeat=False`: not the same one again."""
    _tell("warning: ", string, repeat)


def termerror(string: str, newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Print an error on stderr; `repeat=False`: not the same one again."""
    _tell("error: ", string, repeat)


_told: set[str] = set()


def _tell(kind: str, text: object, repeat: bool) -> None:
    line = f"{kind}{text}"
    if repeat or line not in _told:
        terminal.say(line)
    if not repeat:
        _told.add(line)


def plot_table(
    vega_spec_name: str,
    data_table: Any,
    fields: Mapping[str, str],
    string_fields: Mapping[str, str] | None = None,
    split_table: bool = False,
) -> Media:
    """Draw a table by one of wandb's own charts: "wandb/line/v0", or scatter, bar, histogram in place of line.

    Any other chart is a Vega specification that is kept on their server; its table is kept as it is, with a warning.

    Args:
        vega_spec_name: the chart. data_table: a Table. fields: by the chart's own names, the columns.
        string_fields: `title`. split_table: without meaning here.
    """
    from . import plot

    title = str((string_fields or {}).get("title", ""))
    columns = {name: str(column) for name, column in fields.items()}
    charts: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "wandb/line/v0": (plot.line, ("x", "y")), "wandb/scatter/v0": (plot.scatter, ("x", "y")),
        "wandb/bar/v0": (plot.bar, ("label", "value")), "wandb/histogram/v0": (plot.histogram, ("value",)),
    }  # fmt: skip
    found = charts.get(vega_spec_name)
    if found is not None and all(name in columns for name in found[1]):
        draw, names = found
        drawn: Media = draw(data_table, *(columns[name] for name in names), title=title)
        return drawn
    warn_once(
        f"plot_table {vega_spec_name}",
        f"plot_table({vega_spec_name!r}): a chart of your own has no counterpart; its table is kept.",
    )
    table: Media = data_table
    return table


def _unsupported(name: str, instead: str) -> type[Media]:
    from .media.base import Entry, KeyFolder, Media

    class Unsupported(Media):
        kind = "unsupported"

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def write(self, folder: KeyFolder) -> Entry:
            raise UsageError(f"{name} is not supported: {instead}")

        @classmethod
        def from_file(cls, *_: object, **__: object) -> Media:
            return cls()

        from_numpy = from_point_cloud = from_rdkit = from_smiles = from_keras = from_file

    Unsupported.__name__ = Unsupported.__qualname__ = name
    Unsupported.__doc__ = f"Not supported: {instead}."
    return Unsupported


def _class_set(class_set: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return names of classes as `Image(classes=)` takes them."""
    return list(class_set)


def _generate_id(length: int = 12) -> str:
    """Return a new run id."""
    from .protocol.names import new_run_id

    return new_run_id()


def _nothing(*_: object, **__: object) -> None:
    """Do nothing: what this prepares there needs no preparation here."""


def find(name: str) -> Any:
    """Return what a name of the wandb module means here. Raises KeyError where it means nothing."""
    if name in _UNSUPPORTED:
        found = _unsupported(name, _UNSUPPORTED[name])
    else:
        found = _FOUND[name]()
    return _known.setdefault(name, found)


_known: dict[str, Any] = {}


def _module(name: str) -> Callable[[], Any]:
    def load() -> Any:
        import importlib

        return importlib.import_module(name, __package__)

    return load


_FOUND: dict[str, Callable[[], Any]] = {
    "Settings": lambda: Settings,
    "login": lambda: login,
    "termlog": lambda: termlog,
    "termwarn": lambda: termwarn,
    "termerror": lambda: termerror,
    "plot_table": lambda: plot_table,
    "sklearn": _module(".sklearn_plots"),
    "data_types": _module(".media"),
    "Classes": lambda: _class_set,
    "util": lambda: SimpleNamespace(generate_id=_generate_id),
    "Error": lambda: FlightlogError,
    "CommError": lambda: ServerError,
    "setup": lambda: _nothing,
    "teardown": lambda: _nothing,
    "require": lambda: _nothing,
    "ensure_configured": lambda: _nothing,
}
NAMES = frozenset((*_UNSUPPORTED, *_FOUND))
