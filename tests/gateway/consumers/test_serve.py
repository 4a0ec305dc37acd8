"""The picture socket of the whole service, in a process of its own."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.sandbox.serve import SandboxThread
from tests.gateway.consumers.live import PATH, Client, is_image, is_stopped, wait_for
from tests.serving import Served


def address(served: Served, key: str) -> str:
    return f"{served.url.replace('http', 'ws', 1)}{PATH}?api_key={key}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_stops_says_goodbye(
    tmp_path: Path, sandbox: SandboxThread, workers: int
) -> None:
    data_dir = tmp_path / "data"
    with Served(
        data_dir, sandbox, "--workers", str(workers), extra={"LOG_LEVEL": "DEBUG"}
    ) as served:
        key = served.seed("ok-1")
        with pytest.raises(InvalidStatus) as refused, Client(address(served, "sk-wrong")):
            pass
        assert refused.value.response.status_code == 403
        with Client(address(served, key)) as client:
            run_id = client.start()
            client.hear_until(is_image)
            served.process.send_signal(signal.SIGTERM)
            told = time.monotonic()
            heard = client.hear_until(is_stopped)
            with pytest.raises(ConnectionClosed) as closed:
                client.hear()
            assert time.monotonic() - told < 2
        assert heard[-1]["run_id"] == run_id
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert served.process.wait(15) in {0, -signal.SIGTERM}
        assert wait_for(lambda: sandbox.state.open_streams == 0, 1)
        assert "WebSocket /api/v1/admin/imagine/ws" in served.output
        assert key not in served.output
        assert "sk-wrong" not in served.output
        assert "Traceback" not in served.output
