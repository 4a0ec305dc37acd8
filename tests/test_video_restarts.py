"""Video jobs through the death of the process that works on them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.video_gateway import API_POST, WEB_POST, submissions
from tests.serving import Served, wait_for


class Videos(Served):
    """``serve`` with one credential, and a client key."""

    key = ""

    def add(self, token: str) -> None:
        pool = "api" if token.startswith("xai-") else "ssoBasic"
        self.manage("import_tokens", "-", "--pool", pool, "--json", stdin=token)
        self.key = self.manage("create_api_key", "--name", "test", "--json")["key"]
        assert wait_for(lambda: self.ask_for("").status_code == 200, 10)

    def ask_for(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.get(f"{self.url}/v1/videos{path}", headers=headers, timeout=10)

    def create(self, prompt: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        body = {"prompt": prompt}
        return httpx.post(f"{self.url}/v1/videos", json=body, headers=headers, timeout=10)

    def made(self, prompt: str) -> str:
        assert wait_for(lambda: self.create("SANDBOX:badreq").status_code == 200, 10)
        answer = self.create(prompt)
        assert answer.status_code == 200, answer.text
        made: str = answer.json()["id"]
        return made

    def end_of(self, made: str, seconds: float = 40) -> dict[str, Any]:
        def ended() -> bool:
            return self.ask_for(f"/{made}").json()["status"] in {"completed", "failed"}

        assert wait_for(ended, seconds), (self.ask_for(f"/{made}").text, self.output)
        job: dict[str, Any] = self.ask_for(f"/{made}").json()
        return job


@pytest.fixture
def data_dir(tmp_path: Path, sandbox: SandboxThread) -> Path:
    sandbox.state.reset()
    return tmp_path / "data"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_of_the_api_goes_on_after_a_restart(
    data_dir: Path, sandbox: SandboxThread, number: int
) -> None:
    sandbox.state.options.video_polls = 1_000
    try:
        with Videos(data_dir, sandbox) as first:
            first.add("xai-ok-1-".ljust(84, "x"))
            made = first.made("waves")
            assert wait_for(lambda: len(sandbox.state.videos) == 1, 10)
            assert wait_for(lambda: first.ask_for(f"/{made}").json()["status"] == "in_progress", 5)
            (job,) = sandbox.state.videos.values()
            assert wait_for(lambda: job["polls"] > 0, 5)
            first.stop(number)
        sandbox.state.options.video_polls = 0
        with Videos(data_dir, sandbox) as second:
            second.key = first.key
            assert second.end_of(made)["status"] == "completed"
            content = second.ask_for(f"/{made}/content")
            assert content.content[4:8] == b"ftyp"
    finally:
        sandbox.state.options.video_polls = 1
    waves = [r for r in sandbox.state.requests_to(API_POST) if r.json()["prompt"] == "waves"]
    assert len(waves) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_was_being_submitted_is_given_up(
    data_dir: Path, sandbox: SandboxThread, number: int
) -> None:
    with Videos(data_dir, sandbox) as first:
        first.add("ok-1")
        made = first.made("SANDBOX:hang")
        before = submissions(sandbox, WEB_POST)
        assert wait_for(lambda: hanging(sandbox) == 1, 10), before
        waiting = first.ask_for(f"/{made}").json()
        assert waiting["status"] == "in_progress"
        first.stop(number)
    with Videos(data_dir, sandbox) as second:
        second.key = first.key
        job = second.end_of(made)
    assert (job["status"], job["error"]["code"]) == ("failed", "possibly_accepted")
    assert hanging(sandbox) == 1


def hanging(sandbox: SandboxThread) -> int:
    return sum(b"SANDBOX:hang" in r.body for r in sandbox.state.requests_to(WEB_POST))


def test_two_workers_make_each_video_once(data_dir: Path, sandbox: SandboxThread) -> None:
    with Videos(data_dir, sandbox, "--workers", "2") as served:
        served.add("ok-1")
        made = [served.made(f"waves {i}") for i in range(8)]
        assert {served.end_of(each)["status"] for each in made} == {"completed"}
    prompts = [r.json()["message"] for r in sandbox.state.requests_to(WEB_POST)]
    assert sorted(p for p in prompts if "waves" in p) == [
        f"waves {i} --mode=custom" for i in range(8)
    ]
