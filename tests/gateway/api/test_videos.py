"""``/v1/videos``: OpenAI's SDK, who may see what, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from gateway.sandbox.serve import SandboxThread
from pool.keys import KeyLimits
from tests.gateway.api.test_disconnects import PNG
from tests.gateway.live import KEY, record
from tests.gateway.video_gateway import API_POST, WEB_POST, VideoGateway, submissions

OTHER = "sk-test-1111111111111111111111111111111111111111"
KEYS = {KEY: record(), OTHER: record(id=2, name="other", prefix="sk-test-1")}
UPSTREAMS = {"web": "ok-super-1", "api": "xai-ok-1"}
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]


@pytest.fixture(params=UPSTREAMS)
def gateway(sandbox: SandboxThread, request: pytest.FixtureRequest) -> Iterator[VideoGateway]:
    sandbox.state.reset()
    sandbox.state.options.video_polls = 0
    with VideoGateway(sandbox, [UPSTREAMS[request.param]], keys=KEYS) as running:
        yield running
    sandbox.state.options.video_polls = 1


@pytest.fixture
def client(gateway: VideoGateway) -> Iterator[OpenAI]:
    with gateway.sdk() as client:
        yield client


def test_the_sdk_creates_and_polls(gateway: VideoGateway, client: OpenAI) -> None:
    video = client.videos.create_and_poll(
        model="grok-imagine-1.0-video", prompt="waves", seconds="8", size="1280x720"
    )

    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert (video.seconds, video.size, video.prompt) == ("8", "1280x720", "waves")
    assert video.completed_at is not None
    assert video.expires_at == video.completed_at + 86_400
    content = client.videos.download_content(video.id).read()
    assert content[4:8] == b"ftyp"


def test_the_sdk_retrieves_lists_and_deletes(gateway: VideoGateway, client: OpenAI) -> None:
    ids = [client.videos.create(prompt=f"waves {i}").id for i in range(3)]
    for video_id in ids:
        gateway.end_of(video_id)

    assert client.videos.retrieve(ids[0]).prompt == "waves 0"
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
    page = client.videos.list(limit=2, order="asc")
    assert ([video.id for video in page.data], page.has_more) == (ids[:2], True)
    assert [video.id for video in client.videos.list(after=ids[1], order="asc").data] == ids[2:]
    deleted = client.videos.delete(ids[0])
    assert (deleted.id, deleted.deleted, deleted.object) == (ids[0], True, "video.deleted")
    assert [video.id for video in client.videos.list().data] == ids[:0:-1]


def test_deleting_removes_the_files(gateway: VideoGateway) -> None:
    made = gateway.post()["id"]
    gateway.end_of(made)
    row = gateway.row(made)
    store = gateway.runtime.hosting.store
    assert (store.folders["video"].path / row["video_name"]).is_file()
    with gateway.client() as client:
        assert client.delete(f"/v1/videos/{made}").status_code == 200
        assert client.get(f"/v1/videos/{made}").status_code == 404
        assert client.get(f"/v1/videos/{made}/content").status_code == 404
        assert client.delete(f"/v1/videos/{made}").status_code == 404
    assert not (store.folders["video"].path / row["video_name"]).exists()


def test_the_sdk_sends_a_picture(gateway: VideoGateway, client: OpenAI) -> None:
    def create() -> str:
        return client.videos.create(prompt="waves", input_reference=("a.png", PNG, "image/png")).id

    if gateway.entry(1).kind != "api":
        with pytest.raises(openai.BadRequestError) as refused:
            create()
        assert (refused.value.code, refused.value.param) == (
            "image_to_video_not_supported",
            "model",
        )
        assert submissions(gateway.sandbox, WEB_POST) == 0
        return
    made = create()
    assert gateway.end_of(made)["status"] == "completed"
    sent = gateway.sandbox.state.requests_to(API_POST)[0].json()
    assert sent["image"]["url"].startswith("data:image/png;base64,")
    assert not list(gateway.runtime.hosting.store.folders["image"].path.glob("input-*"))


def test_a_picture_may_come_by_address_too(gateway: VideoGateway) -> None:
    if gateway.entry(1).kind != "api":
        pytest.skip("grok.com's current protocol takes text alone")
    picture = "data:image/png;base64," + base64.b64encode(PNG).decode()
    fields = {"prompt": (None, "waves"), "input_reference[image_url]": (None, picture)}
    with gateway.client() as client:
        made = client.post("/v1/videos", files=fields).json()["id"]
    assert gateway.end_of(made)["status"] == "completed"
    assert gateway.end_of(gateway.post(input_reference=picture)["id"])["status"] == "completed"
    pictures = [r.json()["image"]["url"] for r in gateway.sandbox.state.requests_to(API_POST)]
    assert pictures == [picture, picture]


@pytest.mark.parametrize(("size", "ratio", "resolution"), [
    ("720x1280", "9:16", "720p"),
    ("1792x1024", "16:9", "720p"),
    ("854x480", "16:9", "480p"),
    ("512x512", "1:1", "480p"),
    ("960x720", "4:3", "720p"),
])  # fmt: skip
def test_size_and_seconds_reach_upstream(
    gateway: VideoGateway, size: str, ratio: str, resolution: str
) -> None:
    gateway.end_of(gateway.post(size=size, seconds=11)["id"])
    if gateway.entry(1).kind == "api":
        sent = gateway.sandbox.state.requests_to(API_POST)[0].json()
        found = sent["aspect_ratio"], sent["duration"], sent["resolution"]
    else:
        body = gateway.sandbox.state.requests_to(WEB_POST)[0].json()
        sent = body["mediaGenInput"]["textToVideo"]
        found = sent["aspectRatio"], sent["duration"], sent["resolutionName"]
    assert found == (ratio, 11, resolution)


def test_a_key_sees_its_own_jobs_alone(gateway: VideoGateway) -> None:
    mine = gateway.post()["id"]
    gateway.end_of(mine)
    with gateway.client() as client:
        client.headers["Authorization"] = f"Bearer {OTHER}"
        for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
            answer = client.request(method, f"/v1/videos/{mine}{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert client.get("/v1/videos").json()["data"] == []
        assert client.get("/v1/videos", params={"after": mine}).status_code == 400
    with gateway.client() as client:
        client.headers["Authorization"] = "Bearer wrong"
        assert client.get(f"/v1/videos/{mine}").status_code == 401
    assert gateway.look(mine)["status"] == "completed"


def test_the_content_comes_in_parts(gateway: VideoGateway) -> None:
    made = gateway.post()["id"]
    gateway.end_of(made)
    with gateway.client() as client:
        whole = client.get(f"/v1/videos/{made}/content")
        part = client.get(f"/v1/videos/{made}/content", headers={"Range": "bytes=4-7"})
        head = client.head(f"/v1/videos/{made}/content")
        poster = client.get(f"/v1/videos/{made}/content", params={"variant": "thumbnail"})
        odd = client.get(f"/v1/videos/{made}/content", params={"variant": "spritesheet"})
    assert (whole.headers["content-type"], part.status_code, part.content) == (
        "video/mp4",
        206,
        b"ftyp",
    )
    assert head.headers["content-length"] == str(len(whole.content))
    assert "private" in whole.headers["cache-control"]
    if gateway.entry(1).kind == "api":
        assert poster.status_code == 404
    else:
        assert poster.headers["content-type"] == "image/jpeg"
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, "variant")


BAD: list[tuple[dict[str, object], str, str | None]] = [
    ({"prompt": None}, "string_type", "body.prompt"),
    ({"prompt": "  "}, "empty_content", "prompt"),
    ({"prompt": "\0"}, "empty_content", "prompt"),
    ({"prompt": "x" * 32_001}, "string_too_long", "prompt"),
    ({"model": "no-such"}, "model_not_found", "model"),
    ({"model": "grok-4"}, "model_not_supported", "model"),
    ({"seconds": "0"}, "invalid_seconds", "seconds"),
    ({"seconds": 16}, "invalid_seconds", "seconds"),
    ({"seconds": "8.5"}, "invalid_seconds", "seconds"),
    ({"seconds": "8"}, "", None),
    ({"size": "big"}, "invalid_size", "size"),
    ({"size": "1000x100"}, "invalid_size", "size"),
    ({"size": "7x7"}, "invalid_size", "size"),
    ({"preset": "odd"}, "invalid_preset", "preset"),
    ({"preset": "spicy"}, "nsfw_disabled", "preset"),
    ({"input_reference": {"file_id": "file-1"}}, "invalid_value", "input_reference.file_id"),
    ({"input_reference": 7}, "string_type", "body.input_reference"),
]


@pytest.fixture
def idle(sandbox: SandboxThread) -> Iterator[VideoGateway]:
    with Idle(sandbox, ["ok-super-1", "xai-ok-1"], keys=KEYS) as running:
        yield running


class Idle(VideoGateway):
    working = False


@pytest.mark.parametrize(("fields", "code", "param"), BAD, ids=str)
def test_what_is_wrong_is_named(
    idle: VideoGateway, fields: dict[str, object], code: str, param: str | None
) -> None:
    with idle.client() as client:
        answer = client.post("/v1/videos", json={"prompt": "waves", **fields})
    if not code:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


@pytest.mark.parametrize(("query", "param"), [
    ({"limit": "0"}, "limit"),
    ({"limit": "101"}, "limit"),
    ({"limit": "x"}, "limit"),
    ({"order": "up"}, "order"),
    ({"after": "video_none"}, "after"),
    ({"after": "\0"}, "after"),
])  # fmt: skip
def test_a_list_refuses_odd_questions(
    idle: VideoGateway, query: dict[str, str], param: str
) -> None:
    with idle.client() as client:
        answer = client.get("/v1/videos", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("content", "code"), [
    (b"GIF89a but no picture", "damaged_file"),
    (b"<html>" * 30, "invalid_image_type"),
    (b"", "empty_file"),
])  # fmt: skip
def test_a_picture_must_be_one(sandbox: SandboxThread, content: bytes, code: str) -> None:
    with Idle(sandbox, ["xai-ok-1"]) as gateway, gateway.client() as client:
        files = {"input_reference": ("a.png", content, "image/png")}
        answer = client.post("/v1/videos", data={"prompt": "waves"}, files=files)
        listed = client.get("/v1/videos").json()["data"]
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"], listed) == ("input_reference", [])
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(("address", "code"), [
    ("data:image/png;base64,AAAA", "unsupported_file_type"),
    ("http://127.0.0.1/a.png", "url_not_allowed"),
    ("file:///etc/passwd", "url_not_allowed"),
])  # fmt: skip
def test_a_pictures_address_must_lead_to_one(
    sandbox: SandboxThread, address: str, code: str
) -> None:
    with Idle(sandbox, ["xai-ok-1"]) as gateway, gateway.client() as client:
        body = {"prompt": "waves", "input_reference": {"image_url": address}}
        answer = client.post("/v1/videos", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, "input_reference")


def test_a_job_that_waits_is_queued_and_can_be_deleted(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"]) as gateway, gateway.client() as client:
        made = gateway.post()
        assert (made["status"], made["progress"], made["object"]) == ("queued", 0, "video")
        early = client.get(f"/v1/videos/{made['id']}/content")
        assert (early.status_code, early.json()["error"]["code"]) == (400, "video_not_ready")
        assert client.delete(f"/v1/videos/{made['id']}").json()["deleted"] is True
        assert client.get("/v1/videos").json() == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }


def test_no_job_is_taken_that_nothing_can_serve(sandbox: SandboxThread) -> None:
    with Idle(sandbox, []) as gateway, gateway.client() as client:
        answer = client.post("/v1/videos", json={"prompt": "waves"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert client.get("/v1/videos").json()["data"] == []


def test_a_key_may_be_kept_from_videos(sandbox: SandboxThread) -> None:
    keys = {KEY: record(allowed_models=frozenset({"grok-4"}))}
    with Idle(sandbox, ["ok-1"], keys=keys) as gateway, gateway.client() as client:
        answer = client.post("/v1/videos", json={"prompt": "waves"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")


def test_a_video_is_charged_when_it_is_ordered(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"], keys={KEY: record(limits=KeyLimits(video=1))}) as gateway:
        gateway.post()
        with gateway.client() as client:
            answer = client.post("/v1/videos", json={"prompt": "waves"})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "video_daily_quota_exceeded"


def test_spicy_is_taken_where_the_operator_allows_it(sandbox: SandboxThread) -> None:
    with Idle(sandbox, ["ok-1"], settings={"grok.nsfw_enabled": True}) as gateway:
        assert gateway.post(preset="spicy")["status"] == "queued"


@pytest.mark.parametrize(
    "video_id", ["video_none", "%00", "x" * 300, "%F0%9F%8C%8A", "a%2Fb", ".."]
)
def test_an_odd_id_is_one_of_no_job(idle: VideoGateway, video_id: str) -> None:
    with idle.client() as client:
        for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
            answer = client.request(method, f"/v1/videos/{video_id}{path}")
            assert answer.status_code in {404, 405}, answer.text


def test_a_refused_order_leaves_no_picture_behind(sandbox: SandboxThread) -> None:
    keys = {KEY: record(limits=KeyLimits(video=0))}
    with Idle(sandbox, ["xai-ok-1"], keys=keys) as gateway, gateway.client() as client:
        files = {"input_reference": ("a.png", PNG, "image/png")}
        answer = client.post("/v1/videos", data={"prompt": "waves"}, files=files)
        folder = gateway.runtime.hosting.store.folders["image"].path
        assert answer.json()["error"]["code"] == "video_daily_quota_exceeded"
        assert not list(folder.glob("input-*"))
