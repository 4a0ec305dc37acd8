"""Keeps keys that travel in an address or a header out of the server's own log."""

from __future__ import annotations

import logging
import re

_KEY = re.compile(r"(api_key=)[^&\s\"']*", re.IGNORECASE)
_SERVER_LOGGERS = ("uvicorn.error", "uvicorn.asgi", "uvicorn.access")


class KeepKeysOut(logging.Filter):
    """Below INFO these loggers show whole handshakes and frames, so nothing of that is said;
    above, the one line per socket has the address with its query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(_without_key(value) for value in record.args)
        record.msg = _without_key(record.msg)
        return True


def _without_key(value: object) -> object:
    return _KEY.sub(r"\1...", value) if isinstance(value, str) else value


_FILTER = KeepKeysOut()


def keep_keys_out_of_logs() -> None:
    """Whatever level these loggers have or get; more than once does no harm."""
    for name in _SERVER_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
