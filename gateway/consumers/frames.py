"""What is said on the picture socket (http-contract 7): commands in, events out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from gateway.api.errors import translate
from gateway.relay.imagine_run import ModelUnavailable, Picture
from gateway.translate.images import OTHER_RATIO, ratio_of
from gateway.upstream.errors import (
    ContentRefused,
    QuotaExhausted,
    RequestRejected,
    UpstreamError,
    UpstreamIncomplete,
)
from gateway.wire.errors import ApiError

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    """``prompt`` is trimmed and not empty, ``ratio`` one that upstream draws in."""

    prompt: str
    ratio: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with a pong."""


class BadCommand(Exception):
    """A frame that is no command; the connection stays."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def read_command(text: str | None) -> Start | Stop | Ping:
    """The command of a text frame, None for a binary one; raises BadCommand."""
    match _json_object(text):
        case {"type": "start", **fields}:
            prompt = fields.get("prompt")
            if not isinstance(prompt, str) or not prompt.strip():
                raise BadCommand("empty_prompt", "The prompt is empty.")
            size = fields.get("aspect_ratio")
            return Start(prompt.strip(), ratio_of(size) if isinstance(size, str) else OTHER_RATIO)
        case {"type": "stop"}:
            return Stop()
        case {"type": "ping"}:
            return Ping()
    raise BadCommand("unknown_command", "There is no such command.")


def _json_object(text: str | None) -> Event:
    if text is not None:
        try:
            value = from_json(text)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
    raise BadCommand("invalid_payload", "A frame has to be text, with a JSON object in it.")


def encode(event: Event) -> str:
    """JSON text. A picture is megabytes, for which the standard library takes six times as long."""
    return to_json(event).decode()


PONG: Event = {"type": "pong"}


def running(order: Start, run_id: str) -> Event:
    return {
        "type": "status",
        "status": "running",
        "prompt": order.prompt,
        "aspect_ratio": order.ratio,
        "run_id": run_id,
    }


def stopped(run_id: str) -> Event:
    return {"type": "status", "status": "stopped", "run_id": run_id}


def image(picture: Picture, order: Start, run_id: str) -> Event:
    return {
        "type": "image",
        "b64_json": picture.data,
        "sequence": picture.sequence,
        "created_at": picture.created_at,
        "elapsed_ms": picture.elapsed,
        "aspect_ratio": order.ratio,
        "run_id": run_id,
    }


def failure(code: str, message: str, run_id: str | None = None) -> Event:
    """``run_id`` is there only for an error of a run."""
    event = {"type": "error", "message": message, "code": code}
    return event if run_id is None else event | {"run_id": run_id}


def trouble(error: Exception, run_id: str) -> Event:
    """The event of a round that failed."""
    told = imagine_error(error)
    return failure(told.code or "internal_error", told.message, run_id)


_OWN_CODES = (ContentRefused, RequestRejected, QuotaExhausted)


def imagine_error(error: Exception) -> ApiError:
    """As everywhere, but with the codes that clients of this socket know."""
    if isinstance(error, ModelUnavailable):
        return ApiError(400, str(error), code="model_not_supported")
    told = translate(error)
    if isinstance(error, UpstreamIncomplete):
        told.code = "empty_image"
    elif isinstance(error, UpstreamError) and not isinstance(error, _OWN_CODES):
        told.code = "internal_error"
    return told
