"""From a whole good answer to what one behaviour makes of it; pure, in any dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.sandbox.behaviours import Behaviour

Ending = Literal["eof", "cut", "abort", "ended", "silent"]
EncodeError = Callable[[int | str, str], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One encoded answer.

    ``cut_at`` is an index into ``frames`` amid the answer's tokens, ``complete_at`` the index
    after the frame that completes it. ``failure`` takes the place of all that follows the
    last token (``answer_end``) when the answer fails at its end. ``whole`` is the body
    ready-made, where there is one.
    """

    frames: tuple[bytes, ...]
    cut_at: int
    answer_end: int
    complete_at: int
    error: EncodeError
    failure: tuple[bytes, ...]
    garbage: tuple[bytes, ...]
    pause_ms: int = 0
    whole: bytes | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The frames to send in order, seconds between them, and how the answer ends.

    ``eof`` is the normal end; ``cut`` is a clean one too early, with no end marker.
    """

    frames: tuple[bytes, ...]
    pause_s: float = 0.0
    ending: Ending = "eof"
    whole: bytes | None = None


def plan(script: Script, behaviour: Behaviour, slow_ms: float) -> Plan:
    """What ``behaviour`` makes of ``script``."""
    pause_s = (slow_ms if behaviour.slow else script.pause_ms) / 1000
    frames, ending = _frames(script, behaviour)
    untouched = frames is script.frames and not pause_s and ending == "eof"
    untouched = untouched and behaviour.wrap == "lines"
    return Plan(frames, pause_s, ending, script.whole if untouched else None)


def _frames(script: Script, behaviour: Behaviour) -> tuple[tuple[bytes, ...], Ending]:
    if behaviour.phase == "silent":
        return (), "silent"
    if behaviour.in_band:
        return (script.error(behaviour.code, behaviour.message),), "eof"
    if behaviour.mid:
        error = script.error(behaviour.code, behaviour.message)
        return (*script.frames[: script.cut_at], error), "eof"
    if behaviour.failed:
        return script.frames[: script.answer_end] + script.failure, "eof"
    if behaviour.garbage == "only":
        return script.garbage, "cut"
    if behaviour.garbage:
        return tuple(_littered(script)), "eof"
    return _cut(script, behaviour)


def _cut(script: Script, behaviour: Behaviour) -> tuple[tuple[bytes, ...], Ending]:
    match behaviour.cut:
        case "abort":
            return script.frames[: script.cut_at], "abort"
        case "eof":
            return script.frames[: script.cut_at], "cut"
        case "ended":
            return script.frames[: script.cut_at], "ended"
        case "late":
            return script.frames[: script.complete_at], "abort"
        case _:
            return script.frames, "eof"


def _littered(script: Script) -> Iterator[bytes]:
    for number, frame in enumerate(script.frames):
        yield script.garbage[number % len(script.garbage)]
        yield frame


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    """``body`` in pieces of ``size`` bytes."""
    for at in range(0, len(body), size):
        yield body[at : at + size]
