"""Reading a prompt; and scripts, whose faults never touch what comes before them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sandbox.answers import counted, echo
from gateway.sandbox.behaviours import BEHAVIOURS
from gateway.sandbox.directives import (
    Frames,
    declared_tools,
    forced_behaviour,
    frames_wanted,
    last_user_text,
)
from gateway.sandbox.media_bytes import jpeg, mp4, png
from gateway.sandbox.scripts import pieces, plan
from gateway.sandbox.web_bodies import chat_script, frames_script, wrapped
from gateway.sandbox.ws_frames import ws_frame


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hello", "hello"),
        ("two\n\nparagraphs", "two\n\nparagraphs"),
        ("[system]\nBe brief.\n\n[user]\na\n\n[assistant]\nb\n\n[user]\nlast", "last"),
        ("[user]\nask\n\n[assistant]\nanswer", "ask"),
        ("system: be brief\n\nuser: a\n\nassistant: b\n\nlast\n\nof it", "last\n\nof it"),
        ("system: x\n\nuser: only", "only"),
    ],
)
def test_the_newest_user_turn_is_found(message: str, text: str) -> None:
    assert last_user_text(message) == text


@pytest.mark.parametrize(
    ("prompt", "frames"),
    [
        ("FRAMES:60", Frames(60, 0)),
        ("a FRAMES:5x20 b", Frames(5, 20)),
        ("FRAMES:1 FRAMES:2", Frames(2, 0)),
        ("FRAMES:999999", Frames(100_000, 0)),
        ("FRAMES:", None),
        ("frames", None),
    ],
)
def test_counted_frames_are_read(prompt: str, frames: Frames | None) -> None:
    assert frames_wanted(prompt) == frames


def test_a_forced_behaviour_is_read() -> None:
    forced = forced_behaviour("please SANDBOX:inband-limit.")
    assert forced is BEHAVIOURS["inband-limit"]
    assert forced_behaviour("SANDBOX:nothing-known") is None


def test_declared_tools_are_found_in_order() -> None:
    assert declared_tools('x <tool name="b">..</tool><tool name="a">') == ["b", "a"]


@given(st.text(max_size=300))
def test_the_echo_repeats_every_character(prompt: str) -> None:
    assert echo(prompt).text.startswith(f"You said: {prompt}")


@given(st.binary(max_size=400), st.integers(1, 9))
def test_pieces_lose_nothing(body: bytes, size: int) -> None:
    parts = list(pieces(body, size))
    assert b"".join(parts) == body
    assert all(len(part) <= size for part in parts)


@settings(max_examples=60)
@given(st.sampled_from(sorted(BEHAVIOURS)), st.integers(1, 20))
def test_a_planned_fault_keeps_the_order_of_tokens(name: str, count: int) -> None:
    script = chat_script(counted(Frames(count, 0)), "conv-1", "resp-1", "")
    planned = plan(script, BEHAVIOURS[name], 50)
    kept = [frame for frame in planned.frames if frame in script.frames]
    assert kept == [frame for frame in script.frames if frame in set(kept)]


def test_a_counted_body_is_made_once() -> None:
    script = frames_script(Frames(7, 0))
    assert frames_script(Frames(7, 0)) is script
    assert script.whole == wrapped(script.frames, "lines")
    assert len(script.whole.splitlines()) == len(script.frames)
    assert all(json.loads(line) for line in script.whole.splitlines())


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_websocket_frame_says_its_length(size: int) -> None:
    frame = ws_frame(b"x" * size)
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(frame) == head + size
    assert frame[0] == 0x81


def test_media_files_start_like_media_files() -> None:
    assert png("a").startswith(b"\x89PNG\r\n\x1a\n")
    assert jpeg("a").startswith(b"\xff\xd8\xff")
    assert jpeg("a").endswith(b"\xff\xd9")
    assert mp4("a")[4:8] == b"ftyp"
    assert png("a") != png("b")
    assert jpeg("a") != jpeg("b")
