"""How long a request may run: until its client is gone or the server must stop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from gateway.wire.errors import ApiError


class Ending(Exception):
    """The server ends this request early; ``error`` is what its client is told."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Lifetime:
    """Turns a cancellation that the server asked for into ``Ending``, as asyncio.timeout does.

    A client that went away also cancels the task, but is not converted: nobody is left to
    be told. Use as a context manager around what may be interrupted.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._ending: ApiError | None = None
        self.client_gone = False

    def interrupt(self, error: ApiError) -> None:
        if self._ending is None and not self.client_gone:
            self._ending = error
            self._task.cancel()

    def disconnect(self) -> None:
        if not self.client_gone:
            self.client_gone = True
            self._task.cancel()

    def take_ending(self) -> Ending | None:
        """The interruption behind a CancelledError, once; None when it was not ours."""
        if self._ending is None or self.client_gone:
            return None
        ending, self._ending = Ending(self._ending), None
        self._task.uncancel()
        return ending

    def __enter__(self) -> Lifetime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and (ending := self.take_ending()):
            raise ending from error


class _Unlimited:
    client_gone = True
    """Nobody but a client ends what runs outside the server."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None


_current: ContextVar[Lifetime | _Unlimited] = ContextVar("lifetime", default=_Unlimited())  # noqa: B039
current_lifetime = _current.get
set_lifetime = _current.set
