"""``manage.py serve`` as a process: first start, live changes, refusals to start, clean stops."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.services import DATABASES, REDIS, Service, new_database
from tests.serving import Served, free_port, manage, wait_for


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_the_first_start_makes_everything_and_the_second_keeps_it(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    with Served(data_dir, sandbox) as first:
        key = first.seed("ok-1")
        assert "password" in first.output
    for name in ("secret.key", "pepper.key"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600
    assert (data_dir / "config.toml").exists()

    with Served(data_dir, sandbox) as second:
        assert second.ask(key).status_code == 200
        assert "password" not in second.output
        assert httpx.get(f"{second.url}/health").json()["status"] == "healthy"
        assert httpx.get(f"{second.url}/livez").status_code == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxThread) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("live") / "data", sandbox) as running:
        yield running


def test_changes_made_elsewhere_take_effect_within_two_seconds(served: Served) -> None:
    assert served.ask("sk-nobody").status_code == 401
    served.manage("import_tokens", "-", "--pool", "ssoBasic", "--json", stdin="ok-1")
    key = served.manage("create_api_key", "--name", "new", "--json")["key"]
    assert wait_for(lambda: served.ask(key).status_code == 200, 2.5)

    with sqlite3.connect(served.data_dir / "grok2api.sqlite3") as database:
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 1))
        database.execute("UPDATE pool_clientkey SET is_active = 0, updated_at = ?", (now,))
    database.close()
    assert wait_for(lambda: served.ask(key).status_code == 401, 2.5)


def test_the_configuration_file_is_live(served: Served) -> None:
    key = served.seed("ok-2")
    assert "data:" in served.ask(key).text

    file = served.data_dir / "config.toml"
    file.write_text("[grok]\nstream = false\n", encoding="utf-8")

    assert wait_for(lambda: served.ask(key).text.startswith("{"), 3)


BROKEN = [
    ("[grok]\nstream = maybe\n", ["config.toml", "line 2"]),
    ('[grok]\n\ntimeout = "soon"\n', ["config.toml", "line 3", "grok.timeout"]),
    ("[grok]\nstraem = true\n", ["line 2", "grok.straem", "grok.stream"]),
]


@pytest.mark.parametrize(("text", "named"), BROKEN)
def test_a_broken_configuration_stops_the_start_and_says_where(
    data_dir: Path, text: str, named: list[str]
) -> None:
    data_dir.mkdir()
    (data_dir / "config.toml").write_text(text, encoding="utf-8")

    done = manage(data_dir, "serve", "--port", str(free_port()))

    assert done.returncode != 0
    for part in named:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert (data_dir / "config.toml").read_text(encoding="utf-8") == text


def test_another_secret_key_stops_the_start(data_dir: Path, sandbox: SandboxThread) -> None:
    with Served(data_dir, sandbox) as running:
        running.seed("ok-1")

    other = {"GROK2API_SECRET_KEY": "another-" + "k" * 40}
    done = manage(data_dir, "serve", "--port", str(free_port()), extra=other)

    assert done.returncode != 0
    assert "GROK2API_SECRET_KEY" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("password", ["admin", "grok2api"])
def test_a_password_that_everybody_knows_stops_the_start(data_dir: Path, password: str) -> None:
    known = {"GROK2API_ADMIN_PASSWORD": password}
    done = manage(data_dir, "serve", "--port", str(free_port()), extra=known)

    assert done.returncode != 0
    assert "GROK2API_ADMIN_PASSWORD" in done.stderr


def test_a_taken_port_is_a_clear_error(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = manage(data_dir, "serve", "--port", str(taken.getsockname()[1]))

    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()


class Stream(threading.Thread):
    """Reads one streamed answer to its end."""

    def __init__(self, served: Served, key: str, prompt: str) -> None:
        super().__init__(daemon=True)
        self._served, self._key, self._prompt = served, key, prompt
        self.begun = threading.Event()
        self.text = ""

    def run(self) -> None:
        body = {
            "model": "grok-4",
            "stream": True,
            "messages": [{"role": "user", "content": self._prompt}],
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self._served.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as response:
            for piece in response.iter_text():
                self.text += piece
                self.begun.set()


def test_a_stop_lets_short_streams_finish_and_ends_long_ones_properly(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    with Served(data_dir, sandbox, extra={"GROK2API_SERVER__DRAIN_SEC": "2"}) as served:
        key = served.seed("ok-1", "ok-2", "ok-3")
        short, long = Stream(served, key, "FRAMES:20x50"), Stream(served, key, "FRAMES:900x50")
        for stream in (short, long):
            stream.start()
            assert stream.begun.wait(10)

        begun = time.monotonic()
        code = served.stop(signal.SIGTERM)

        assert time.monotonic() - begun < 10
        assert code in {0, -signal.SIGTERM}
        for stream in (short, long):
            stream.join(5)
            assert stream.text.rstrip().endswith("data: [DONE]")
        assert "w19 " in short.text
        assert "error" not in short.text
        assert "service_stopping" in long.text
        assert "Traceback" not in served.output
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/livez")

    database = sqlite3.connect(data_dir / "grok2api.sqlite3")
    uses = database.execute("SELECT SUM(use_count) FROM pool_credential").fetchone()[0]
    database.close()
    assert uses >= 3


def test_an_interrupt_stops_it_without_a_traceback(data_dir: Path, sandbox: SandboxThread) -> None:
    with Served(data_dir, sandbox) as served:
        code = served.stop(signal.SIGINT)

        assert code in {0, 130, -signal.SIGINT}
        assert "Traceback" not in served.output


def test_several_workers_share_the_port_and_follow_changes(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    with Served(data_dir, sandbox, "--workers", "2") as served:
        key = served.seed("ok-1", "ok-2")
        time_left = 2.5
        assert wait_for(lambda: served.ask(key).status_code == 200, time_left)
        assert wait_for(lambda: all(served.ask(key).status_code == 200 for _ in range(12)), 5)
        code = served.stop(signal.SIGTERM)
        assert code == 0
        assert "Traceback" not in served.output


@pytest.mark.parametrize("service", DATABASES, ids=lambda service: service.name)
def test_it_serves_from_another_database(
    data_dir: Path, sandbox: SandboxThread, service: Service
) -> None:
    service.need()
    with (
        new_database(service, "serve") as extra,
        Served(data_dir, sandbox, extra=extra) as served,
    ):
        key = served.seed("ok-1")
        assert served.ask(key).status_code == 200
        served.stop(signal.SIGTERM)
        assert not (data_dir / "grok2api.sqlite3").exists()


def test_it_serves_with_redis(data_dir: Path, sandbox: SandboxThread) -> None:
    REDIS.need()
    with Served(data_dir, sandbox, extra={"REDIS_URL": f"{REDIS.url}9"}) as served:
        assert served.ask(served.seed("ok-1")).status_code == 200


def test_a_killed_worker_is_replaced(data_dir: Path, sandbox: SandboxThread) -> None:
    with Served(data_dir, sandbox, "--workers", "2") as served:
        key = served.seed("ok-1", "ok-2")
        workers = children(served.process.pid)
        os.kill(workers[0], signal.SIGKILL)

        assert wait_for(lambda: workers[0] not in children(served.process.pid), 10)
        assert wait_for(lambda: len(children(served.process.pid)) == len(workers), 10)
        assert wait_for(lambda: served.ask(key).status_code == 200, 5)


def children(pid: int) -> list[int]:
    """The processes that serve below ``pid``, not Python's own resource tracker."""
    found = []
    for item in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((item / "stat").read_text().rpartition(")")[2].split()[1])
            command = (item / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"resource_tracker" not in command:
            found.append(int(item.name))
    return sorted(found)
