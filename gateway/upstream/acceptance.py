"""Whether a request that failed may be under way upstream all the same.

A video costs quota from the moment upstream takes it, so it is never submitted a second
time unless the first was certainly refused (upstream-web 9.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.upstream.errors import (
    BalanceExhausted,
    ContentRefused,
    CredentialRejected,
    Forbidden,
    NetworkFailed,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
)

_REFUSALS = (
    BalanceExhausted,
    ContentRefused,
    CredentialRejected,
    Forbidden,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
)


@contextmanager
def submitted(accepted: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Marks what is raised inside: ``maybe_accepted``, and then no ``retry``.

    ``accepted`` tells whether upstream has begun to answer the request as one it took.
    """
    try:
        yield
    except UpstreamError as error:
        if accepted() or not _refused(error):
            error.maybe_accepted = True
            error.retry = False
        raise


def _refused(error: UpstreamError) -> bool:
    """Whether the request certainly came to nothing: it never left, or was turned away."""
    if isinstance(error, NetworkFailed):
        return not error.sent
    return 400 <= (error.upstream_status or 0) < 500 or isinstance(error, _REFUSALS)
