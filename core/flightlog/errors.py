"""Every exception that flightlog raises on purpose.

    FlightlogError
    ├── UsageError              the call itself is wrong: log("x"), log() after finish(), a run id with a slash
    │   ├── NoRunError          flightlog.log, flightlog.config and their like where no run has begun
    │   └── ResumeError         resume="must" and no such run, resume="never" and there is one
    ├── SettingsError           a settings file or variable that cannot be understood
    ├── MissingDependency       an optional package is needed for this value; the text has the pip command
    ├── NotFound                a run, artifact or folder that was asked for is not there
    ├── DamagedError            local data cannot be read: the file and line are named
    └── ServerError             talking to a server
        ├── KeyNeeded           no API key for this server, and nobody to ask
        ├── PermanentError      asking again will not help: 401, 403, 404, 410, 413, 422, or no flightlog server there
        │   ├── AuthError       the key is wrong, revoked, or may not do this
        │   ├── GoneError       the run was deleted on the server
        │   └── DivergedError   the server holds other bytes under the same (run, writer, seq)
        └── RetryableError      asking later may help: no connection, time-out, 408, 429, 5xx

Inside a training only UsageError and its kind are ever raised; what else goes wrong there is a warning.
"""

from __future__ import annotations


class FlightlogError(Exception):
    """Base of all errors that flightlog raises; its text says what happened, to what, and what to do."""


class UsageError(FlightlogError, ValueError):
    """The call itself is wrong. Also a ValueError, so that callers need not know flightlog."""


class NoRunError(UsageError, AttributeError):
    """There is no current run. Also an AttributeError: without a run, `flightlog.config` is not there."""


class ResumeError(UsageError):
    """The run to resume is missing ("must") or exists although it should not ("never")."""


class SettingsError(FlightlogError):
    """A settings file or environment variable cannot be understood."""


class MissingDependency(FlightlogError, ImportError):
    """An optional package is needed for what was asked; the text names the pip command."""


class NotFound(FlightlogError, LookupError):
    """What was asked for is not there."""


class DamagedError(FlightlogError):
    """Local data cannot be read; the text names the file and the line."""


class ServerError(FlightlogError):
    """Talking to a server failed. `retryable`: the same may work at another time, with nothing changed by its user."""

    retryable = False


class KeyNeeded(ServerError):
    """There is no API key for this server and nobody at a terminal to ask."""


class PermanentError(ServerError):
    """The server said no, and will say no again.

    `retryable` is true where it was not the server at all that answered, but a captive portal, say: asking again at
    once is no use, asking again in an hour is.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: dict[str, object] | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body or {}
        self.retryable = retryable


class AuthError(PermanentError):
    """The API key is wrong, revoked, expired, or may not do this."""


class GoneError(PermanentError):
    """The run was deleted on the server (410)."""


class DivergedError(PermanentError):
    """The server holds other bytes under the same run, writer and seq."""


class RetryableError(ServerError):
    """The request may succeed later. `retry_after` is the server's own wish in seconds, where it gave one."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
