"""The table, and each behaviour's effect on the wire of REST chat and api.x.ai."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from gateway.sandbox.behaviours import BEHAVIOURS, behaviour_of, describe
from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import (
    Caller,
    answer_text,
    chunks,
    json_lines,
    responses,
    sse_data,
)


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("ok-1", "ok"),
        ("xai-limited-noretry-1", "limited-noretry"),
        ("limited-1", "limited"),
        ("mgmt-expired", "expired"),
        ("inband-limit-9", "inband-limit"),
        ("okay-1", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_longest_known_name_decides(token: str, name: str) -> None:
    assert behaviour_of(token).name == name


def test_every_behaviour_is_described() -> None:
    text = describe()
    assert all(name in text for name in BEHAVIOURS)
    assert all(row.doc for row in BEHAVIOURS.values())


@pytest.mark.parametrize(
    ("token", "status", "marker"),
    [
        ("unknown-1", 401, "Unauthenticated"),
        ("expired-1", 401, "Unauthenticated"),
        ("unauthenticated-1", 401, "Unauthenticated"),
        ("blocked-1", 403, "blocked-user"),
        ("deadcred-1", 403, "invalid-credentials"),
        ("limited-1", 429, "Too many requests"),
        ("limited-noretry-1", 429, "Too many requests"),
        ("broke-1", 402, "run out of credits"),
        ("moderated-1", 403, "content-moderated"),
        ("badreq-1", 400, "invalid_argument"),
        ("challenge-1", 403, "Just a moment"),
        ("empty403-1", 403, ""),
        ("forbidden-1", 403, "permission-denied"),
        ("noent-1", 403, "Access to the chat endpoint is denied"),
        ("error500-1", 500, "Internal"),
        ("error503-gzip-1", 503, "unavailable"),
        ("html-1", 200, "<!DOCTYPE html>"),
    ],
)
async def test_a_web_refusal(caller: Caller, token: str, status: int, marker: str) -> None:
    async with caller.chat(token) as response:
        text = await response.text()
    assert response.status == status
    assert marker in text
    assert bool(text) == (token != "empty403-1")


@pytest.mark.parametrize(
    ("token", "status", "marker"),
    [
        ("nobody", 400, "Incorrect API key provided"),
        ("deadcred-1", 400, "Incorrect API key provided"),
        ("expired-1", 401, "bad-credentials"),
        ("blocked-1", 403, "unauthorized:blocked-user"),
        ("limited-1", 429, "resource-exhausted"),
        ("limited-noretry-1", 429, "Resets in: 12s"),
        ("limited-credit-1", 429, "used all available credits"),
        ("broke-1", 403, "used all available credits"),
        ("moderated-1", 403, "SAFETY_CHECK_TYPE_"),
        ("badreq-1", 400, "invalid-argument"),
        ("challenge-1", 403, "Just a moment"),
        ("empty403-1", 403, ""),
        ("forbidden-1", 403, "permission-denied"),
        ("error500-1", 500, "Internal error"),
        ("error503-gzip-1", 503, "currently unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_xai_refusal(
    caller: Caller, token: str, status: int, marker: str, stream: bool
) -> None:
    async with caller.completions(token, stream=stream) as response:
        assert response.status == status
        assert marker in await response.text()


async def test_limited_names_a_time_and_limited_noretry_does_not(caller: Caller) -> None:
    async with caller.chat("limited-1") as response:
        assert response.headers["Retry-After"] == "7"
    async with caller.chat("limited-noretry-1") as response:
        assert "Retry-After" not in response.headers


async def test_error503_is_compressed(caller: Caller) -> None:
    async with caller.chat("error503-gzip-1") as response:
        assert response.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("token", "code"),
    [("inband-1", 13), ("inband-limit-1", 8), ("inband-antibot-1", 7), ("inband-error-1", 13)],
)
async def test_an_error_in_band_is_the_only_object(caller: Caller, token: str, code: int) -> None:
    async with caller.chat(token) as response:
        objects = json_lines(await response.read())
    assert response.status == 200
    assert [item["error"]["code"] for item in objects] == [code]


async def test_midlimit_fails_after_some_answer_tokens(caller: Caller) -> None:
    async with caller.chat("midlimit-1", "FRAMES:10") as response:
        objects = json_lines(await response.read())
    assert answer_text(objects) == "w0 w1 w2 w3 w4 "
    assert objects[-1]["error"]["code"] == 8


async def test_failed_reports_its_failure_at_the_end(caller: Caller) -> None:
    async with caller.chat("failed-1", "FRAMES:4") as response:
        objects = json_lines(await response.read())
    assert answer_text(objects) == "w0 w1 w2 w3 "
    errors = responses(objects)[-1]["modelResponse"]["streamErrors"]
    assert errors == [{"message": "upstream stream failed", "code": 13}]
    assert not any(part.get("isSoftStop") for part in responses(objects))


async def test_reset_breaks_off_before_the_headers(caller: Caller) -> None:
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        async with caller.chat("reset-1"):
            pass


async def test_hang_sends_no_headers(caller: Caller) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), caller.chat("hang-1"):
            pass


async def test_silent_sends_headers_only(caller: Caller) -> None:
    async with caller.chat("silent-1") as response:
        assert response.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await response.content.readany()


async def test_cut_breaks_off_amid_the_answer(caller: Caller) -> None:
    body = b""
    async with caller.chat("cut-1", "FRAMES:10") as response:
        with pytest.raises(aiohttp.ClientError):
            async for piece in response.content.iter_any():
                body += piece
    assert answer_text(json_lines(body)) == "w0 w1 w2 w3 w4 "


@pytest.mark.parametrize("token", ["cutclean-1", "ended-1"])
async def test_cutclean_ends_without_completion(caller: Caller, token: str) -> None:
    async with caller.chat(token, "FRAMES:10") as response:
        objects = json_lines(await response.read())
    assert answer_text(objects) == "w0 w1 w2 w3 w4 "
    assert not any("modelResponse" in part for part in responses(objects))


async def test_late_cut_breaks_off_after_the_whole_answer(caller: Caller) -> None:
    body = b""
    async with caller.chat("late-cut-1", "FRAMES:10") as response:
        with pytest.raises(aiohttp.ClientError):
            async for piece in response.content.iter_any():
                body += piece
    assert "modelResponse" in responses(json_lines(body))[-1]


async def test_garbage_stands_among_valid_frames(caller: Caller) -> None:
    async with caller.chat("garbage-1", "FRAMES:8") as response:
        lines = (await response.read()).splitlines()
    good = []
    for line in lines:
        try:
            good.append(json.loads(line))
        except ValueError:
            continue
    assert answer_text([item for item in good if "result" in item]) == "".join(
        f"w{number} " for number in range(8)
    )
    assert len(good) < len(lines)


async def test_garbageonly_holds_no_answer(caller: Caller) -> None:
    async with caller.chat("garbageonly-1") as response:
        assert b"modelResponse" not in await response.read()


async def test_slow_sends_token_by_token(caller: Caller) -> None:
    async with caller.chat("slow-1", "FRAMES:3") as response:
        pieces = [piece async for piece in response.content.iter_any()]
    assert len(pieces) >= 3
    assert answer_text(json_lines(b"".join(pieces))) == "w0 w1 w2 "


async def test_sse_wrapping(caller: Caller) -> None:
    async with caller.chat("wrap-sse-1", "FRAMES:3") as response:
        data = sse_data(await response.read())
    assert data[-1] == "[DONE]"
    assert answer_text([json.loads(item) for item in data[:-1]]) == "w0 w1 w2 "


async def test_concatenated_wrapping(caller: Caller) -> None:
    async with caller.chat("wrap-concat-1", "FRAMES:3") as response:
        body = await response.read()
    assert b"\n" not in body
    assert answer_text(json_lines(body.replace(b"}{", b"}\n{"))) == "w0 w1 w2 "


@pytest.mark.parametrize(("token", "size"), [("split1-1", 1), ("split7-1", 7)])
async def test_split_writes_small_pieces(caller: Caller, token: str, size: int) -> None:
    async with caller.chat(token, "ok") as response:
        pieces = [piece async for piece, _ in response.content.iter_chunks()]
    body = b"".join(pieces)
    assert len(pieces) > 20
    assert "You said: ok" in answer_text(json_lines(body))
    assert len(min(pieces, key=len)) <= size


async def test_the_prompt_forces_a_behaviour_whatever_the_token(caller: Caller) -> None:
    async with caller.chat("ok-1", "please SANDBOX:limited now") as response:
        assert response.status == 429
    async with caller.chat("limited-1", "please SANDBOX:ok") as response:
        assert response.status == 200
    async with caller.completions("ok-1", "SANDBOX:broke") as response:
        assert response.status == 403


async def test_a_dead_account_is_refused_on_every_route(caller: Caller) -> None:
    for token, status in (("expired-1", 401), ("blocked-1", 403), ("limited-1", 200)):
        async with caller.web_post(token, "/rest/rate-limits", {"modelName": "fast"}) as reply:
            assert reply.status == status


@pytest.mark.parametrize("stream", [False, True])
async def test_xai_in_band_is_json_with_a_200(caller: Caller, stream: bool) -> None:
    async with caller.completions("inband-limit-1", stream=stream) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert (await response.json())["code"] == "resource-exhausted"


async def test_xai_error_frames_appear_amid_a_stream(caller: Caller) -> None:
    async with caller.completions("midlimit-1", "FRAMES:4", stream=True) as response:
        frames = chunks(await response.read())
    assert frames[-1]["code"] == "resource-exhausted"
    assert frames[-2]["choices"][0]["delta"]["content"] == "w1 "


async def test_xai_cuts(caller: Caller) -> None:
    for stream in (False, True):
        async with caller.completions("cut-1", stream=stream) as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()
    async with caller.completions("cutclean-1", stream=True) as response:
        assert b"[DONE]" not in await response.read()


async def test_xai_hang_reset_and_silence(caller: Caller, sandbox: RunningSandbox) -> None:
    for token in ("hang-1", "silent-1"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), caller.completions(token) as response:
                await response.read()
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        async with caller.completions("reset-1"):
            pass
