"""uvicorn as this project runs it."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway.telemetry.slots import prepare_directory
from grok2api.env import LIMIT_TABLE
from pool.limits.table import create


class CannotListen(Exception):
    """The address cannot be had; the message names it and the reason."""


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 picks a free one. Raises CannotListen.

    Made before anything else is done, so that a second server on one port stops at once;
    clients are refused until ``run`` has an application to serve them.
    """
    if not 0 <= port < 65536:
        raise CannotListen(f"Cannot listen on {host}:{port}: a port is from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # "localhost" means both families; clients that try only one try IPv4.
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotListen(f"Cannot listen on {host}:{port}: {reason}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Workers(Multiprocess):
    """uvicorn's supervisor, which else would keep the port open while its workers drain."""

    def terminate_all(self) -> None:
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    @property
    def failed(self) -> bool:
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)


def _prepare_sharing(directory: Path, workers: int) -> None:
    """Where the workers of this server count together; they are told by the environment."""
    prepare_directory(directory / "metrics")
    table = directory / "client-keys.table"
    create(table, workers=workers)
    os.environ[LIMIT_TABLE] = str(table)


def run(listener: socket.socket, *, workers: int, drain_sec: int) -> None:
    """Serve until SIGINT or SIGTERM; raises SystemExit when a worker cannot start.

    Running requests are ended after ``drain_sec``; one second later uvicorn cuts off what
    is left.
    """
    config = uvicorn.Config(
        "grok2api.asgi:application",
        workers=workers,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=drain_sec + 1,
        backlog=2048,
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,  # what is sent is pictures, which do not get smaller
        ws_ping_timeout=60,  # a large picture on a slow line may take longer than the usual 20
    )
    if workers > 1:
        listener.set_inheritable(True)
        supervisor = _Workers(config, sockets=[listener])
        with tempfile.TemporaryDirectory(prefix="grok2api-") as shared:
            _prepare_sharing(Path(shared), workers)
            supervisor.run()
        if supervisor.failed:
            raise SystemExit(STARTUP_FAILURE)
        return
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
