"""Starting and ending the processes a benchmark needs."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.usage import family, threads

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
WANTED_FILES = 8192
_OURS = ("GROK2API_", "SERVER_", "REDIS_URL", "CACHE_RESET_", "DJANGO_", "LOG_LEVEL")


class StartFailed(Exception):
    """A process did not come up; the message has the end of its log."""


@dataclass(slots=True)
class Running:
    """A started process. ``log`` holds its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def check(self) -> None:
        """Raises StartFailed when it has ended."""
        if self.process.poll() is not None:
            code = self.process.returncode
            raise StartFailed(f"{self.name} ended with code {code}:\n{self.tail()}")


class Stage:
    """``with Stage() as stage:`` holds processes and a directory; both go at the end.

    Where there are two CPUs or more, what is measured has one of them to itself, and this
    process and its other children have the rest: a process that is moved about, or shares
    its caches, looks dearer than it is.
    """

    def __init__(self) -> None:
        self._cpus = os.sched_getaffinity(0)
        self._measured = {min(self._cpus)}
        self._processes: list[Running] = []
        self._directory = tempfile.TemporaryDirectory(
            prefix="grok2api-bench-", ignore_cleanup_errors=True
        )
        self.path = Path(self._directory.name)

    def __enter__(self) -> Self:
        raise_file_limit()
        if len(self._cpus) > 1:
            os.sched_setaffinity(0, self._cpus - self._measured)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for running in self._processes:
            running.process.terminate()
        for running in self._processes:
            try:
                running.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
        self._directory.cleanup()
        os.sched_setaffinity(0, self._cpus)

    def start(self, name: str, command: list[str], env: dict[str, str] | None = None) -> Running:
        """Start ``command`` in the project's root with a clean environment plus ``env``."""
        log = self.path / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environment() | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Running(name, process, log)
        self._processes.append(running)
        return running

    def pin(self, running: Running) -> None:
        """Move what is to be measured to the CPU set apart for it."""
        for pid in family(running.pid):
            for thread in threads(pid):
                os.sched_setaffinity(thread, self._measured)

    def python(self, name: str, arguments: list[str], env: dict[str, str] | None = None) -> Running:
        return self.start(name, [sys.executable, *arguments], env)


def clean_environment() -> dict[str, str]:
    """The environment without any setting of the gateway, so that runs can be compared."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"PYTHONUNBUFFERED": "1"}


def finish(running: Running, patience: float = START_TIMEOUT) -> str:
    """Wait for a process that ends by itself; its output. Raises StartFailed."""
    code = running.process.wait(patience)
    if code:
        raise StartFailed(f"{running.name} ended with code {code}:\n{running.tail()}")
    return running.log.read_text()


def wait_for_line(running: Running, start: str) -> str:
    """The first line of output that begins with ``start``. Raises StartFailed."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        for line in running.log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith(start) and line.endswith("\n"):
                return line.strip()
        running.check()
        time.sleep(0.02)
    raise StartFailed(f"{running.name} says nothing:\n{running.tail()}")


def wait_for_http(running: Running, url: str) -> None:
    """Until ``url`` answers below 500. Raises StartFailed."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        running.check()
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own http address
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise StartFailed(f"{running.name} does not answer:\n{running.tail()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit(wanted: int = WANTED_FILES) -> None:
    """Let this process and its children open many sockets, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def nginx_path() -> str | None:
    return shutil.which("nginx")
