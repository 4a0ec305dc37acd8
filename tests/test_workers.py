"""Several worker processes: how they share, stop, fail and outlive nobody."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from gateway.sandbox.serve import SandboxThread
from grok2api import server
from tests.services import DATABASES, Service
from tests.serving import Served, manage, wait_for
from tests.test_serve import Stream, children


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def uses(data_dir: Path) -> int:
    database = sqlite3.connect(data_dir / "grok2api.sqlite3")
    count: int = database.execute("SELECT SUM(use_count) FROM pool_credential").fetchone()[0]
    database.close()
    return count


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def ask_until_answered(served: Served, key: str, answers: int) -> None:
    """Exactly ``answers`` answers; refusals on the way there cost nothing."""

    def answered() -> bool:
        nonlocal answers
        answers -= served.ask(key).status_code == 200
        return answers == 0

    assert wait_for(answered, 10)


def test_a_stop_refuses_new_clients_at_once_and_loses_no_count(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    extra = {"GROK2API_SERVER__DRAIN_SEC": "2", "GROK2API_TOKEN__SAVE_DELAY_MS": "60000"}
    with Served(data_dir, sandbox, "--workers", "2", extra=extra) as served:
        served.manage("import_tokens", "-", "--pool", "ssoBasic", "--json", stdin="ok-1\nok-2")
        key = served.manage("create_api_key", "--name", "test", "--json")["key"]
        ask_until_answered(served, key, 15)
        short, long = Stream(served, key, "FRAMES:20x50"), Stream(served, key, "FRAMES:900x50")
        for stream in (short, long):
            stream.start()
            assert stream.begun.wait(10)
        assert uses(data_dir) == 0

        os.killpg(served.process.pid, signal.SIGINT)  # as Ctrl-C does: to all of them

        assert wait_for(lambda: is_refused(served.port), 1.5)
        assert long.is_alive()
        assert served.process.wait(10) == 0
        for stream in (short, long):
            stream.join(5)
            assert stream.text.rstrip().endswith("data: [DONE]")
        assert "w19 " in short.text
        assert "service_stopping" in long.text
        assert "Traceback" not in served.output
    assert uses(data_dir) == 17


def test_workers_stop_when_the_process_above_them_is_killed(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    extra = {"GROK2API_TOKEN__SAVE_DELAY_MS": "60000"}
    with Served(data_dir, sandbox, "--workers", "2", extra=extra) as served:
        served.manage("import_tokens", "-", "--pool", "ssoBasic", "--json", stdin="ok-1")
        key = served.manage("create_api_key", "--name", "test", "--json")["key"]
        ask_until_answered(served, key, 3)
        workers = children(served.process.pid)
        assert len(workers) == 2

        served.stop(signal.SIGKILL)

        assert wait_for(lambda: not any(is_running(pid) for pid in workers), 5)
        assert is_refused(served.port)
    assert uses(data_dir) == 3


def is_running(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_that_cannot_start_stop_the_service_with_an_error(
    data_dir: Path, tmp_path: Path
) -> None:
    """The workers find an interpreter that fails; what started them does not."""
    broken = "import os, sys\nif '--multiprocessing-fork' in sys.orig_argv: os._exit(3)\n"
    (tmp_path / "sitecustomize.py").write_text(broken, encoding="utf-8")

    done = manage(
        data_dir, "serve", "--port", "0", "--workers", "2", extra={"PYTHONPATH": str(tmp_path)}
    )

    assert done.returncode == 3
    assert "failed to start" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named_before_anything_is_made(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = manage(data_dir, "serve", "--port", port, "--workers", "2")
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert not (data_dir / "grok2api.sqlite3").exists()
    assert "password" not in done.stdout


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1", 70000), ("127.0.0.1", -1), ("203.0.113.7", 0), ("no such host", 0),
     ("x" * 300, 0), ("", 65536)],
)  # fmt: skip
def test_an_address_that_cannot_be_had_is_named(host: str, port: int) -> None:
    with pytest.raises(server.CannotListen) as refused:
        server.bind(host, port).close()
    assert str(refused.value).startswith(f"Cannot listen on {host}:{port}: ")


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:"), ("localhost", "http://127.0.0.1:"),
     ("0.0.0.0", "http://0.0.0.0:"), ("::1", "http://[::1]:")],
)  # fmt: skip
def test_a_free_port_is_found_and_clients_are_refused_until_it_is_served(
    host: str, url: str
) -> None:
    with server.bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert server.url_of(listener) == f"{url}{port}"
        assert is_refused(port)


@pytest.mark.parametrize("service", DATABASES, ids=lambda service: service.name)
def test_a_database_that_cannot_be_reached_is_one_message(data_dir: Path, service: Service) -> None:
    service.need_driver()
    scheme = service.url.partition("+")[0]
    extra = {
        "SERVER_STORAGE_TYPE": service.storage,
        "SERVER_STORAGE_URL": f"{scheme}://me:hunter2@127.0.0.1:9/db",
    }
    done = manage(data_dir, "serve", "--port", "0", extra=extra)
    assert done.returncode == 1
    assert "The database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_the_demos_data_is_not_served_to_others(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "demo.key").touch()
    done = manage(data_dir, "serve", "--port", "0")
    assert done.returncode == 1
    assert "admin password is public" in done.stderr


def test_the_demo_names_a_way_out_of_a_taken_port(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = manage(data_dir, "demo", extra={"SERVER_PORT": str(taken.getsockname()[1])})
    assert done.returncode == 1
    assert "Address already in use. SERVER_PORT chooses another port." in done.stderr
