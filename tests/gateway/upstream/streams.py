"""Recorded streams, the three wrappings of upstream-web 1.5, and ways to cut them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings

from gateway.upstream.events import Event, Reasoning, Text

RECORDINGS = Path(__file__).parent / "recordings"
ASSETS = "https://assets.example.net"
PROPERTY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a fresh machine Hypothesis first builds its tables of Unicode, which takes its time."""
WRAPPINGS = ("lines", "sse", "joined")


def recording(name: str) -> list[bytes]:
    """The objects of a recording, one item each."""
    return (RECORDINGS / f"{name}.jsonl").read_bytes().splitlines()


def wrap(objects: Iterable[bytes], wrapping: str) -> bytes:
    if wrapping == "joined":
        return b"".join(objects)
    if wrapping == "lines":
        return b"".join(item + b"\n" for item in objects)
    dressed = (b"event: message\r\ndata: " + item + b"\r\n\r\n" for item in objects)
    return b": hello\n\n" + b"".join(dressed) + b"data: [DONE]\n\n"


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """``data`` in pieces, cut at ``places`` (taken modulo its length)."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return (data[start:stop] for start, stop in pairwise(at))


def merged(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring pieces of text put together."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Text) and isinstance(last, Text):
            result[-1] = Text(last.text + event.text)
        elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
            result[-1] = Reasoning(last.text + event.text)
        else:
            result.append(event)
    return result


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))
