"""The gateway as a process of its own, on a data directory of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from gateway.sandbox.serve import SandboxThread

ROOT = Path(__file__).parent.parent
ADDRESSES = (
    "GROK__BASE_URL",
    "GROK__ACCOUNTS_URL",
    "GROK__ASSETS_URL",
    "XAI__BASE_URL",
    "XAI__MANAGEMENT_URL",
)
HEARD_WITHIN = 2.0
"""Seconds in which every worker follows a change."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def environment(data_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that configures a gateway."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GROK2API_", "SERVER_", "DJANGO_")) and name != "REDIS_URL"
    }
    return {
        **inherited,
        "GROK2API_DATA_DIR": str(data_dir),
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra or {}),
    }


def manage(
    data_dir: Path,
    *arguments: str,
    extra: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(data_dir, extra),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Served:
    """``with Served(data_dir, sandbox) as served:`` runs ``manage.py serve`` until it is ready."""

    def __init__(
        self,
        data_dir: Path,
        sandbox: SandboxThread,
        *arguments: str,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.extra = {f"GROK2API_{name}": sandbox.url for name in ADDRESSES} | dict(extra or {})
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self._output = data_dir.parent / f"{data_dir.name}-{self.port}.log"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--port", str(self.port), *self._arguments],
                cwd=ROOT,
                env=environment(self.data_dir, self.extra),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        self.start()
        if not wait_for(self.is_ready, 30):
            self.stop(signal.SIGKILL)
            raise AssertionError(self.output)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.output)
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: int) -> int:
        """Signal the process and give its exit code; raises when it takes over 15 seconds."""
        self.process.send_signal(number)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise

    def manage(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run a command beside the server; its JSON, or the finished process."""
        done = manage(self.data_dir, *arguments, extra=self.extra, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done

    def seed(self, *tokens: str) -> str:
        """Import web sessions and make a client key, in effect everywhere when this returns."""
        self.manage("import_tokens", "-", "--pool", "ssoBasic", "--json", stdin="\n".join(tokens))
        key: str = self.manage("create_api_key", "--name", "test", "--json")["key"]
        assert wait_for(lambda: self.ask(key).status_code == 200, 5), self.ask(key).text
        if "--workers" in self._arguments:
            time.sleep(HEARD_WITHIN)
        return key

    def ask(self, key: str, prompt: str = "FRAMES:1", **fields: Any) -> httpx.Response:
        body = {"model": "grok-4", "messages": [{"role": "user", "content": prompt}], **fields}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=20)
