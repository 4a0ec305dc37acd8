"""The chat socket: handshake, opening, turns, and what goes wrong."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from gateway.sandbox.answers import RENDER_TAG, expected_text
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller, ask_mgw, open_mgw, read_events

OTHER_UID = "11111111-2222-4333-8444-555555555555"


async def converse(caller: Caller, token: str, text: str = "hi") -> list[dict[str, Any]]:
    async with caller.mgw(token) as ws:
        session, _ = await open_mgw(ws)
        await ask_mgw(ws, session, text)
        return await read_events(ws)


def said(events: list[dict[str, Any]], channels: tuple[str, ...]) -> str:
    texts = [event["chunk"]["text"] for event in events if "text" in event.get("chunk", {})]
    return "".join(text["text"] for text in texts if text["channel"] in channels)


ANSWER = ("CHANNEL_ASSISTANT_RESPONSE", "")


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    events = await converse(caller, "ok-1", "[user]\nWhat is a tide?")
    assert said(events, ANSWER).replace(RENDER_TAG, "") == expected_text("What is a tide?")
    assert "Checking sources" in said(events, ("CHANNEL_ANALYSIS",))
    assert events[-1]["response"]["status"] == "completed"
    assert {"response.search.result", "response.output_text.done"} <= {e["type"] for e in events}
    chunk_keys = {key for event in events for key in event.get("chunk", {})}
    assert {"tool_usage_card", "tool_result", "render_citation"} <= chunk_keys
    assert sandbox.state.violations == []


async def test_the_opening_comes_in_either_order(caller: Caller) -> None:
    seen = set()
    for _ in range(12):
        async with caller.mgw("ok-1") as ws:
            seen.add(tuple((await open_mgw(ws))[1]))
    assert seen == {
        ("session.created", "conversation.attached"),
        ("conversation.attached", "session.created"),
    }


async def test_the_opening_repeats_with_the_seed(
    caller: Caller, sandbox: RunningSandbox, options: SandboxOptions
) -> None:
    async def orders() -> list[list[str]]:
        found = []
        for _ in range(5):
            async with caller.mgw("ok-1") as ws:
                found.append((await open_mgw(ws))[1])
        return found

    first = await orders()
    sandbox.state.reset()
    assert await orders() == first


async def test_a_turn_before_both_opening_frames_is_refused(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    async with caller.mgw("ok-1") as ws:
        create = {"type": "session.create", "event_id": "e", "session": {"model": "fast"}}
        await ws.send_json({"event": create})
        await ask_mgw(ws, "conv-000000000001", "hi")
        events = await read_events(ws)
    assert events[-1]["type"] == "error"
    assert sandbox.state.violations[0].rule == "mgw-protocol"


async def test_the_uid_must_be_that_of_the_cookie(caller: Caller, sandbox: RunningSandbox) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with caller.mgw("ok-1", OTHER_UID, Cookie="sso=ok-1; x-userid=someone"):
            pass
    assert refused.value.status == 400
    assert sandbox.state.violations[-1].rule == "mgw-uid"


async def test_another_accounts_uid_is_noted(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.mgw("ok-1", OTHER_UID) as ws:
        await open_mgw(ws)
    assert [violation.rule for violation in sandbox.state.violations] == ["foreign-uid"]


async def test_a_referer_or_subprotocol_is_noted(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.mgw("ok-1", Referer="https://grok.com/") as ws:
        await open_mgw(ws)
    assert [violation.detail for violation in sandbox.state.violations] == ["Referer"]


async def test_an_unknown_mode_is_an_error(caller: Caller) -> None:
    async with caller.mgw("ok-1") as ws:
        create = {"type": "session.create", "event_id": "e", "session": {"model": "warp"}}
        await ws.send_json({"event": create})
        assert (await ws.receive_json())["event"]["type"] == "error"


@pytest.mark.parametrize(
    ("token", "status"),
    [("expired-1", 401), ("blocked-1", 403), ("limited-1", 429), ("error500-1", 500)],
)
async def test_a_refused_handshake(caller: Caller, token: str, status: int) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with caller.mgw(token):
            pass
    assert refused.value.status == status


async def test_html_and_reset_at_the_handshake(caller: Caller) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with caller.mgw("html-1"):
            pass
    assert refused.value.status == 200
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        async with caller.mgw("reset-1"):
            pass


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("inband-limit-1", 8),
        ("inband-antibot-1", 7),
        ("moderated-1", 7),
        ("badreq-1", "invalid_argument"),
        ("midlimit-1", 8),
    ],
)
async def test_an_error_event(caller: Caller, token: str, code: int | str) -> None:
    events = await converse(caller, token, "FRAMES:4")
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["code"] == code
    assert said(events, ANSWER) == ("w0 w1 " if token == "midlimit-1" else "")


async def test_a_forced_limit_is_an_error_event(caller: Caller) -> None:
    events = await converse(caller, "ok-1", "SANDBOX:limited")
    assert events[-1]["error"]["code"] == "rate_limit_exceeded"


async def test_failed_ends_without_completion(caller: Caller) -> None:
    events = await converse(caller, "failed-1", "FRAMES:2")
    assert said(events, ANSWER) == "w0 w1 "
    assert events[-1]["response"]["status"] == "failed"


@pytest.mark.parametrize(
    ("token", "last"),
    [("ended-1", "session.ended"), ("cutclean-1", "response.chunk"), ("cut-1", "response.chunk")],
)
async def test_the_socket_ends_amid_the_answer(caller: Caller, token: str, last: str) -> None:
    events = await converse(caller, token, "FRAMES:10")
    assert said(events, ANSWER) == "w0 w1 w2 w3 w4 "
    assert events[-1]["type"] == last


async def test_garbage_stands_among_valid_frames(caller: Caller) -> None:
    events = await converse(caller, "garbage-1", "FRAMES:5")
    assert said(events, ANSWER) == "w0 w1 w2 w3 w4 "
    assert {"unreadable", "surprise.event"} <= {event["type"] for event in events}


@pytest.mark.parametrize("token", ["split1-1", "split7-1", "slow-1", "wrap-sse-1"])
async def test_odd_delivery_changes_nothing(caller: Caller, token: str) -> None:
    events = await converse(caller, token, "FRAMES:5")
    assert said(events, ANSWER) == "w0 w1 w2 w3 w4 "
    assert events[-1]["response"]["status"] == "completed"


async def test_counted_frames_carry_the_session_id(caller: Caller) -> None:
    async with caller.mgw("ok-1") as ws:
        session, _ = await open_mgw(ws)
        await ask_mgw(ws, session, "FRAMES:200")
        frames = [await ws.receive_json() for _ in range(201)]
    assert {frame["session_id"] for frame in frames} == {session}
    assert said([frame["event"] for frame in frames], ANSWER).split() == [
        f"w{number}" for number in range(200)
    ]


async def test_a_prompt_for_pictures_gets_cards(caller: Caller) -> None:
    events = await converse(caller, "ok-1", "Drawing: a cat")
    cards = [e["output"]["card_attachment"]["jsonData"] for e in events if "output" in e]
    finished = [c["image_chunk"] for c in cards if c["image_chunk"]]
    urls = [chunk["imageUrl"] for chunk in finished if chunk["progress"] == 100]
    assert len(urls) == 2
    async with caller.web_get("ok-1", "/" + urls[0]) as picture:
        assert picture.status == 200


async def test_anothers_upload_is_refused(caller: Caller, sandbox: RunningSandbox) -> None:
    upload = {"fileName": "a.txt", "fileMimeType": "text/plain", "content": "aGk="}
    async with caller.web_post("ok-1", "/rest/app-chat/upload-file", upload) as reply:
        file_id = (await reply.json())["fileMetadataId"]
    kinds = []
    for token in ("ok-1", "ok-2"):
        async with caller.mgw(token) as ws:
            session, _ = await open_mgw(ws)
            await ask_mgw(ws, session, "hi", (file_id,))
            kinds.append((await read_events(ws))[-1]["type"])
    assert kinds == ["response.done", "error"]
    assert sandbox.state.violations[0].rule == "foreign-upload"


async def test_pings_are_counted(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.mgw("ok-1") as ws:
        await ws.send_json({"event": {"type": "ping", "event_id": "evt_hb_1"}})
        session, _ = await open_mgw(ws)
        await ask_mgw(ws, session, "hi")
        await read_events(ws)
    assert sandbox.state.counters["mgw-ping"] == 1
