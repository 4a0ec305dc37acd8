"""``python -m bench.files``: a cached file over ``/v1/files``, next to nginx sending the same file.

The server under test has a CPU to itself, the readers have the others. They read with plain
sockets into one buffer, so that what is measured is the sending. ``X-Accel-Redirect`` is nginx
in front of the gateway, which says who may read and leaves the sending to nginx.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.processes import Running, Stage, free_port, nginx_path, wait_for_http
from bench.usage import cpu_seconds, family

WANTED = 0.5
NAME = "bench.png"
GATEWAY_PATH = f"/v1/files/image/{NAME}"
_NGINX = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
user {user};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile {sendfile};
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type image/png;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    open_file_cache max=100;
    server {{
        listen 127.0.0.1:{port};
        location /v1/files/ {{ alias {media}/; }}
        location /internal-media/ {{ internal; alias {media}/; }}
        location /through/ {{ proxy_pass http://127.0.0.1:{gateway}/v1/files/; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    url: str
    path: str
    pids: list[int]


@dataclass(frozen=True, slots=True)
class Round:
    """MB per second, and milliseconds of the server's CPU per file."""

    rate: float
    cpu_ms: float


class Reader:
    """One keep-alive connection that reads a file again and again."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.url)
        self._raw = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._request = f"GET {target.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self._buffer = bytearray(1 << 20)

    def read(self) -> int:
        """The bytes of one answer's body; raises SystemExit for a wrong one."""
        self._raw.sendall(self._request)
        got = self._raw.recv_into(self._buffer)
        head, _, body = bytes(self._buffer[:got]).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"wrong answer: {head[:200]!r}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        left = length - len(body)
        while left > 0:
            left -= self._raw.recv_into(self._buffer)
        return length

    def close(self) -> None:
        self._raw.close()


def measure(target: Target, files: int, connections: int) -> Round:
    readers = [Reader(target) for _ in range(connections)]
    for reader in readers:
        reader.read()
    sizes: list[int] = []

    def work(reader: Reader) -> None:
        for _ in range(files // connections):
            sizes.append(reader.read())

    threads = [threading.Thread(target=work, args=(reader,)) for reader in readers]
    cpu, began = cpu_seconds(target.pids), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - began, cpu_seconds(target.pids) - cpu
    for reader in readers:
        reader.close()
    return Round(sum(sizes) / wall / 1e6, cpu / len(sizes) * 1000)


def start(stage: Stage, root: Path) -> list[Target]:
    port, behind = free_port(), free_port()
    gateway = _begin(stage, root, "gateway", port)
    targets = [_target("gateway", gateway, port)]
    if nginx_path():
        accelerated = _begin(stage, root, "behind", behind, "--redirect", "/internal-media/")
        port = free_port()
        nginx = _nginx(stage, root, port, behind, "on")
        direct = _target("nginx, sendfile on", nginx, port)
        both = [*direct.pids, *family(accelerated.pid)]
        through = Target("X-Accel-Redirect", direct.url, f"/through/image/{NAME}", both)
        port = free_port()
        copying = _target("nginx, sendfile off", _nginx(stage, root, port, behind, "off"), port)
        targets += [direct, through, copying]
    return targets


def _begin(stage: Stage, root: Path, name: str, port: int, *more: str) -> Running:
    arguments = ["-m", "bench.serve_files", "--root", str(root), "--port", str(port), *more]
    running = stage.python(name, arguments, {"GROK2API_DATA_DIR": str(stage.path / "data")})
    wait_for_http(running, f"http://127.0.0.1:{port}/v1/files/image/none")
    stage.pin(running)
    return running


def _nginx(stage: Stage, root: Path, port: int, gateway: int, sendfile: str) -> Running:
    place = stage.path / f"nginx-{sendfile}"
    place.mkdir()
    file = place / "nginx.conf"
    user = "root" if os.geteuid() == 0 else "nobody"
    file.write_text(
        _NGINX.format(
            dir=place, media=root, port=port, gateway=gateway, sendfile=sendfile, user=user
        )
    )
    running = stage.start(f"nginx-{sendfile}", [nginx_path() or "nginx", "-c", str(file)])
    wait_for_http(running, f"http://127.0.0.1:{port}/")
    stage.pin(running)
    return running


def _target(name: str, running: Running, port: int) -> Target:
    return Target(name, f"http://127.0.0.1:{port}", GATEWAY_PATH, family(running.pid))


def write_file(root: Path, size: int) -> None:
    """It begins like a picture, which is all that serving looks at."""
    (root / "image").mkdir(parents=True)
    (root / "image" / NAME).write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(size - 8))


def medians(rounds: dict[str, list[Round]], pick: Callable[[Round], float]) -> dict[str, float]:
    return {name: median(pick(one) for one in found) for name, found in rounds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=5.0, help="MB of the file")
    parser.add_argument("--files", type=int, default=400, help="per round")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with Stage() as stage:
        root = stage.path / "media"
        write_file(root, int(options.size * 1_000_000))
        targets = start(stage, root)
        rounds: dict[str, list[Round]] = {target.name: [] for target in targets}
        for turn in range(options.rounds):
            for target in targets[turn % len(targets) :] + targets[: turn % len(targets)]:
                rounds[target.name].append(measure(target, options.files, options.connections))
    return report(rounds, options.size)


def report(rounds: dict[str, list[Round]], size: float) -> int:
    rates = medians(rounds, lambda one: one.rate)
    costs = medians(rounds, lambda one: one.cpu_ms)
    best = rates.get("nginx, sendfile on")
    print(f"\n{size:g} MB files{'':18} {'MB/s':>8} {'x nginx':>8} {'CPU ms/file':>12}")
    for name, rate in rates.items():
        ratio = f"{rate / best:8.2f}" if best else f"{'':8}"
        print(f"{name:28} {rate:8.0f} {ratio} {costs[name]:12.2f}")
    if best and rates["gateway"] < WANTED * best:
        print(f"\nbelow {WANTED:g} x nginx")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
