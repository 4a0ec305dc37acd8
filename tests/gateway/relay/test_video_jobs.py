"""Jobs from the queue to their end: once, through faults, restarts and several workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from gateway.relay.video_jobs import VideoJobs
from gateway.sandbox.serve import SandboxThread
from gateway.videos.jobs import NewJob
from gateway.videos.models import VideoJob
from gateway.videos.table import JobTable
from pool.keys import KeyLimits
from tests.gateway.live import KEY, record
from tests.gateway.video_gateway import API_POST, WEB_POST, VideoGateway, submissions
from tests.serving import wait_for

MODEL = "grok-imagine-1.0-video"
pytestmark = pytest.mark.django_db(transaction=True)
ONE_VIDEO = {KEY: record(limits=KeyLimits(video=1))}


class Idle(VideoGateway):
    working = False


@pytest.fixture(autouse=True)
def fresh(sandbox: SandboxThread) -> Iterator[None]:
    sandbox.state.reset()
    sandbox.state.options.video_polls = 0
    yield
    sandbox.state.options.video_polls = 1


CLOSED = ["reset", "error500", "error503-gzip", "cut", "cutclean", "garbageonly", "late-cut"]
API_ALSO = ["hang", "silent", "html"]
"""grok.com may be silent for minutes while it makes a video; its HTML is a refusal."""
FAULTS = [*(("", each) for each in CLOSED), *(("xai-", each) for each in [*CLOSED, *API_ALSO])]


@pytest.mark.parametrize(("prefix", "behaviour"), FAULTS)
def test_what_may_have_been_accepted_is_submitted_once(
    sandbox: SandboxThread, prefix: str, behaviour: str
) -> None:
    """With three more credentials to go to, and every retry allowed."""
    path = API_POST if prefix else WEB_POST
    tokens = [f"{prefix}{behaviour}-1", *(f"{prefix}ok-{i}" for i in range(3))]
    settings = {"grok.timeout": 1, "xai.timeout": 1, "grok.max_retry": 5}
    with VideoGateway(sandbox, tokens, keys=ONE_VIDEO, settings=settings) as gateway:
        # Of keys of the API any may be the first.
        prompt = f"SANDBOX:{behaviour}" if prefix else "waves"
        job = gateway.end_of(gateway.post(prompt=prompt)["id"])
        asked = submissions(sandbox, path)
        row = gateway.row(job["id"])
        with gateway.client() as client:
            again = client.post("/v1/videos", json={"prompt": "waves"})
    assert asked == 1
    if job["status"] == "completed":
        assert behaviour == "late-cut"
        return
    assert job["error"]["code"].startswith("upstream_"), job
    assert row["accepted"] is True
    assert again.json()["error"]["code"] == "video_daily_quota_exceeded"


@pytest.mark.parametrize("behaviour", ["limited", "expired", "forbidden", "broke"])
@pytest.mark.parametrize("prefix", ["", "xai-"])
def test_what_was_certainly_refused_goes_to_another_credential(
    sandbox: SandboxThread, behaviour: str, prefix: str
) -> None:
    tokens = [f"{prefix}{behaviour}-1", f"{prefix}ok-2"]
    with VideoGateway(sandbox, tokens) as gateway:
        job = gateway.end_of(gateway.post()["id"])
    assert job["status"] == "completed", job


@pytest.mark.parametrize("token", ["moderated-1", "xai-moderated-1", "badreq-1", "xai-badreq-1"])
def test_a_refused_job_costs_nothing(sandbox: SandboxThread, token: str) -> None:
    """The key may have one video a day; what is refused is given back within a second."""
    with VideoGateway(sandbox, [token], keys=ONE_VIDEO) as gateway:
        for _ in range(3):
            job = gateway.end_of(ordered(gateway))
            assert (job["status"], gateway.row(job["id"])["accepted"]) == ("failed", False)
    assert job["error"]["code"] in {"content_policy_violation", "invalid_request"}
    assert job["completed_at"] is None


def ordered(gateway: VideoGateway) -> str:
    """A job, as soon as the key may have one; its id."""
    found: list[str] = []

    def order() -> bool:
        with gateway.client() as client:
            made = client.post("/v1/videos", json={"prompt": "waves"})
        found.extend([made.json()["id"]] if made.status_code == 200 else [])
        return bool(found)

    assert wait_for(order, 8)
    return found[0]


@pytest.mark.parametrize("token", ["failed-1", "xai-failed-1", "xai-moderated-one-1"])
def test_a_video_that_upstream_fails_stays_charged(sandbox: SandboxThread, token: str) -> None:
    with VideoGateway(sandbox, [token, token + "-b"], keys=ONE_VIDEO) as gateway:
        job = gateway.end_of(gateway.post()["id"])
        row = gateway.row(job["id"])
        path = API_POST if token.startswith("xai-") else WEB_POST
        assert (job["status"], row["accepted"], submissions(sandbox, path)) == ("failed", True, 1)


@pytest.mark.parametrize("fault", ["denied", "html", "wrongtype", "cut", "reset"])
def test_a_video_that_cannot_be_fetched_is_not_made_again(
    sandbox: SandboxThread, fault: str
) -> None:
    with VideoGateway(sandbox, [f"asset-{fault}-1", "ok-2"]) as gateway:
        job = gateway.end_of(gateway.post()["id"])
    assert job["error"]["code"] == "media_postprocessing_failed"
    assert submissions(sandbox, WEB_POST) == 1


def test_hd_is_what_it_says_on_a_basic_account(sandbox: SandboxThread) -> None:
    """Which has no product but 720p (upstream-web 6.3)."""
    with VideoGateway(sandbox, ["ok-1"]) as gateway:
        for size in ("854x480", "1280x720"):
            gateway.end_of(gateway.post(size=size)["id"])
    bodies = [request.json() for request in sandbox.state.requests_to(WEB_POST)]
    sent = [body["mediaGenInput"]["textToVideo"]["resolutionName"] for body in bodies]
    assert sent == ["720p", "720p"]


def test_progress_is_told_while_a_job_runs(sandbox: SandboxThread) -> None:
    sandbox.state.options.video_polls = 2
    with VideoGateway(sandbox, ["xai-ok-1"]) as gateway:
        made = gateway.post()["id"]
        assert wait_for(lambda: gateway.look(made)["progress"] == 37, 12), gateway.row(made)
        assert gateway.look(made)["status"] == "in_progress"
        row = gateway.row(made)
        (request_id,) = sandbox.state.videos
        assert (row["upstream"], row["credential_id"], row["accepted"]) == ("api", 1, True)
        assert row["upstream_id"] == request_id
        with gateway.client() as client:
            busy = client.delete(f"/v1/videos/{made}")
        assert (busy.status_code, busy.json()["error"]["code"]) == (400, "video_in_progress")


def test_no_more_jobs_run_at_once_than_allowed(sandbox: SandboxThread) -> None:
    settings = {"performance.media_max_concurrent": 2}
    with VideoGateway(sandbox, ["hang-1"], settings=settings) as gateway:
        ids = [gateway.post()["id"] for _ in range(4)]
        assert wait_for(lambda: submissions(sandbox, WEB_POST) == 2, 5)
        assert gateway.runtime.video_jobs.running == 2
        assert [gateway.look(each)["status"] for each in ids] == [
            "in_progress",
            "in_progress",
            "queued",
            "queued",
        ]


def test_a_job_waits_for_a_busy_credential(sandbox: SandboxThread) -> None:
    settings = {"pool.max_concurrent_per_credential": 1}
    with VideoGateway(sandbox, ["ok-1"], settings=settings) as gateway:
        ids = [gateway.post()["id"] for _ in range(3)]
        assert [gateway.end_of(each)["status"] for each in ids] == ["completed"] * 3


def claimed_by_the_dead(gateway: VideoGateway, **changes: object) -> str:
    """A job whose worker has given no sign of life for long; its id."""
    made: str = gateway.post()["id"]
    long_ago = timezone.now() - timedelta(minutes=1)
    VideoJob.objects.filter(public_id=made).update(worker="dead", heartbeat_at=long_ago, **changes)
    return made


def test_a_job_lost_while_it_was_submitted_is_not_submitted_again(
    sandbox: SandboxThread,
) -> None:
    with Idle(sandbox, ["ok-1"], keys=ONE_VIDEO) as gateway:
        made = claimed_by_the_dead(gateway, status="submitting")
        gateway.begin_work()
        job = gateway.end_of(made)
        with gateway.client() as client:
            assert client.post("/v1/videos", json={"prompt": "waves"}).status_code == 429
    assert job["error"]["code"] == "possibly_accepted"
    assert submissions(sandbox, WEB_POST) == 0


def test_a_job_of_grok_com_whose_stream_was_lost_has_failed(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"]) as gateway:
        lost = {"status": "running", "accepted": True, "upstream": "web", "credential_id": 1}
        made = claimed_by_the_dead(gateway, **lost)
        gateway.begin_work()
        assert gateway.end_of(made)["error"]["code"] == "upstream_stream_lost"
    assert submissions(sandbox, WEB_POST) == 0


def test_a_job_of_grok_com_that_was_finished_upstream_is_fetched(sandbox: SandboxThread) -> None:
    with VideoGateway(sandbox, ["ok-1"]) as gateway:
        first = gateway.row(gateway.end_of(gateway.post()["id"])["id"])
        gateway.end_work()
        found = {name: first[name] for name in ("upstream", "credential_id", "upstream_id")}
        made = claimed_by_the_dead(gateway, status="running", accepted=True, **found)
        gateway.begin_work()
        assert gateway.end_of(made)["status"] == "completed"
    assert submissions(sandbox, WEB_POST) == 1


def test_a_job_of_the_api_is_followed_with_its_own_key(sandbox: SandboxThread) -> None:
    """Another key is told that there is no such job."""
    tokens = [f"xai-ok-{i}" for i in range(4)]
    with Idle(sandbox, tokens) as gateway:
        owner = tokens.index("xai-ok-2") + 1
        sandbox.state.videos["request-1"] = {
            "token": "xai-ok-2",
            "polls": 0,
            "duration": 6.0,
            "model": "grok-imagine-video",
            "failed": False,
            "moderated": False,
        }
        taken = {"upstream": "api", "credential_id": owner, "upstream_id": "request-1"}
        made = claimed_by_the_dead(gateway, status="running", accepted=True, **taken)
        gateway.begin_work()
        assert gateway.end_of(made)["status"] == "completed"
        gone = claimed_by_the_dead(
            gateway, status="running", accepted=True, **taken | {"credential_id": 99}
        )
        assert gateway.end_of(gone)["error"]["code"] == "upstream_unavailable"
    assert submissions(sandbox, API_POST) == 0


def test_a_job_that_was_only_claimed_is_made(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"]) as gateway:
        made = claimed_by_the_dead(gateway)
        gateway.begin_work()
        assert gateway.end_of(made)["status"] == "completed"
    assert submissions(sandbox, WEB_POST) == 1


def test_a_job_of_a_living_worker_is_left_to_it(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"]) as gateway:
        made = gateway.post()["id"]
        elsewhere = JobTable("elsewhere")
        assert [job.public_id for job in elsewhere.claim_waiting(5)] == [made]
        gateway.begin_work()
        other = gateway.post()["id"]
        assert gateway.end_of(other)["status"] == "completed"
        assert gateway.row(made)["worker"] == "elsewhere"


def test_a_worker_that_stops_leaves_its_jobs_to_others_at_once(sandbox: SandboxThread) -> None:
    with VideoGateway(sandbox, ["hang-1"], keys=ONE_VIDEO) as gateway:
        made = gateway.post()["id"]
        assert wait_for(lambda: submissions(sandbox, WEB_POST) == 1, 5)
        gateway.end_work()
        JobTable(gateway.runtime.deployment.worker).let_go()
        assert gateway.row(made)["worker"] == ""
        gateway.begin_work()
        assert gateway.end_of(made)["error"]["code"] == "possibly_accepted"
    assert submissions(sandbox, WEB_POST) == 1


def another(gateway: VideoGateway, name: str) -> VideoJobs:
    """A second worker of the same gateway."""
    return VideoJobs(JobTable(name), gateway.runtime.video_jobs.means, clock=time.monotonic)


def run_workers(gateway: VideoGateway, count: int) -> None:
    """Until all jobs have ended."""

    async def run() -> None:
        workers = [another(gateway, f"worker-{i}") for i in range(count)]
        tasks = [asyncio.create_task(jobs.run_forever()) for jobs in workers]
        table = JobTable("reader")
        async with asyncio.timeout(9):
            while await workers[0].ask(table.unfinished):  # noqa: ASYNC110 - the database's
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for jobs in workers:
            await jobs.close()

    gateway.inside_async(run)


def test_of_many_workers_one_runs_a_job(sandbox: SandboxThread) -> None:
    with Idle(sandbox, [f"ok-{i}" for i in range(5)]) as gateway:
        ids = [gateway.post()["id"] for _ in range(12)]
        run_workers(gateway, 3)
        assert {gateway.look(each)["status"] for each in ids} == {"completed"}
    assert submissions(sandbox, WEB_POST) == 12


def test_a_client_that_leaves_while_it_orders_leaves_a_job_that_is_made(
    sandbox: SandboxThread,
) -> None:
    with VideoGateway(sandbox, ["ok-1"], keys=ONE_VIDEO) as gateway:
        new = NewJob("video_left", 1, "test", MODEL, "waves", "16:9", 6, "1280x720", True, "custom")

        async def order_and_leave() -> None:
            ordering = asyncio.create_task(gateway.runtime.video_jobs.create(new, ONE_VIDEO[KEY]))
            await asyncio.sleep(0)
            ordering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ordering

        gateway.inside_async(order_and_leave)
        assert gateway.end_of("video_left")["status"] == "completed"
        with gateway.client() as client:
            assert client.post("/v1/videos", json={"prompt": "waves"}).status_code == 429


def test_a_job_whose_picture_is_gone_has_failed_and_costs_nothing(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["xai-ok-1"], keys=ONE_VIDEO) as gateway:
        made = gateway.post()["id"]
        VideoJob.objects.filter(public_id=made).update(input_name="input-gone.png")
        gateway.begin_work()
        assert gateway.end_of(made)["error"]["code"] == "input_expired"
        gateway.end_of(ordered(gateway))
    assert submissions(sandbox, API_POST) == 1
