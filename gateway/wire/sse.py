"""Server-sent events, as OpenAI's clients read them."""

from __future__ import annotations

from json import encoder

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_quote = encoder.encode_basestring
_quote_ascii = encoder.encode_basestring_ascii


def frame(json_text: bytes) -> bytes:
    return b"data: " + json_text + b"\n\n"


def json_string(text: str) -> bytes:
    """``text`` as a JSON string; UTF-8, or ASCII escapes where it holds half a surrogate pair."""
    try:
        return bytes(_quote(text), "utf-8")
    except UnicodeEncodeError:
        return bytes(_quote_ascii(text), "ascii")
