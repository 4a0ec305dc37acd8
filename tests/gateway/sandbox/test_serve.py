"""Running it: in a thread, and as a command."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command

from gateway.sandbox.behaviours import BEHAVIOURS
from gateway.sandbox.serve import SandboxThread

ROOT = Path(__file__).resolve().parents[3]


def fetch(url: str) -> int:
    split = urlsplit(url)
    connection = HTTPConnection(split.netloc, timeout=5)
    try:
        connection.request("GET", split.path, headers={"Authorization": "Bearer xai-ok-1"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_runs_in_a_thread() -> None:
    with SandboxThread() as sandbox:
        assert fetch(sandbox.url + "/v1/models") == 200
        assert sandbox.state.counters["/v1/models"] == 1
        url = sandbox.url
    with pytest.raises(OSError):
        fetch(url + "/v1/models")


def test_a_taken_port_is_an_error_in_the_callers_thread() -> None:
    with SandboxThread() as sandbox:
        second = SandboxThread(port=int(sandbox.url.rpartition(":")[2]))
        with pytest.raises(OSError), second:
            pass


def test_the_command_lists_the_behaviours() -> None:
    out = io.StringIO()
    call_command("sandbox", "--list", stdout=out)
    assert all(f"{name}-*" in out.getvalue() for name in BEHAVIOURS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_url_and_ends_cleanly(number: signal.Signals) -> None:
    command = [sys.executable, "manage.py", "sandbox", "--port", "0"]
    with subprocess.Popen(  # our own command
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert fetch(url + "/v1/models") == 200
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
