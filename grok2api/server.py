"""uvicorn as this project runs it."""

from __future__ import annotations

from dataclasses import dataclass

import uvicorn
from uvicorn.supervisors import Multiprocess


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int


def run(address: Address, *, workers: int, drain_sec: int) -> None:
    """Serve until SIGINT or SIGTERM; raises SystemExit when a worker cannot start.

    Running requests are ended after ``drain_sec``; one second later uvicorn cuts off what
    is left.
    """
    config = uvicorn.Config(
        "grok2api.asgi:application",
        host=address.host,
        port=address.port,
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
    )
    server = uvicorn.Server(config)
    try:
        if workers > 1:
            Multiprocess(config, sockets=[config.bind_socket()]).run()
        else:
            server.run()
    except KeyboardInterrupt:
        return
    if workers == 1 and not server.started:
        raise SystemExit(3)
