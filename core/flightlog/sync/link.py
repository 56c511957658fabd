"""The way to the server, as all runs of a watch share it: open, shut for a while after a failure, or refused."""

from __future__ import annotations

import random
import time

from ..client import Client
from ..errors import AuthError, RetryableError
from ..keys import Server
from .session import Connect

LONGEST_WAIT = 30.0
_QUIET_FAILURES = 1  # a connection that had been idle may be gone: no reason to say anything


class Link:
    """Knows whether the server can be asked now.

    Args:
        server: the server. key: the API key for it.
        workspace, project: what all runs go to; None where each goes where it says.
        connect: makes a client.

    Attributes:
        client: for the watch's own thread.
        refused: why the server will not take anything with this key; None while it does.
        down: why it cannot be reached, since more than a moment; None while it can.
    """

    def __init__(
        self,
        server: Server,
        key: str,
        workspace: str | None,
        connect: Connect = Client,
        project: str | None = None,
    ) -> None:
        self.server = server
        self.key = key
        self.workspace = workspace
        self.project = project
        self.connect = connect
        self.client = connect(server.origin, key)
        self.refused: str | None = None
        self.down: str | None = None
        self._failures = 0
        self._hesitations = 0
        self._not_before = 0.0
        self._account_workspace: str | None = None

    def is_open(self, now: float) -> bool:
        """Tell whether it is worth asking."""
        return self.refused is None and now >= self._not_before

    @property
    def opens_at(self) -> float:
        """When it is worth asking again, by the monotonic clock."""
        return self._not_before

    def failed(self, error: Exception) -> None:
        """A request failed that may work later: wait, about half as long as it has been away, with jitter."""
        if isinstance(error, AuthError):
            self.refused = str(error)
            return
        now = time.monotonic()
        if now < self._not_before:
            return  # another request that was under way; the same failure
        self._failures += 1
        wait = min(0.3 * 1.5**self._failures, LONGEST_WAIT) * random.uniform(0.75, 1.25)  # noqa: S311
        wished = error.retry_after if isinstance(error, RetryableError) else None
        self._not_before = now + max(wait, wished or 0.0)
        if self._failures > _QUIET_FAILURES:
            self.down = str(error)

    def hesitates(self, error: RetryableError, wait: float) -> None:
        """A request within a whole sync failed, which goes on trying by itself for a while."""
        self._hesitations += 1
        if self._hesitations > _QUIET_FAILURES:
            self.down = str(error)

    def worked(self) -> None:
        """A request came through."""
        self._failures = self._hesitations = 0
        self._not_before = 0.0
        self.down = None

    def workspace_of(self, named: str | None) -> str:
        """Return the workspace that a run goes to which names this one, or none. Raises as the client does."""
        if self.workspace or named:
            return str(self.workspace or named)
        if self._account_workspace is None:
            self._account_workspace = self.client.account().default_workspace
        return self._account_workspace
