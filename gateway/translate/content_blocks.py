"""Message content, block by block, with the contract's codes (http-contract 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.upstream.requests import AudioPart, FilePart, ImagePart, Part, TextPart
from gateway.wire.errors import bad_request

Block = Mapping[str, Any]


def parse_content(
    content: str | list[Any] | None, path: str, *, role: str, may_be_empty: bool
) -> tuple[Part, ...]:
    """The parts of one message; raises ApiError 400 naming the block at ``path``."""
    if content is None or isinstance(content, str):
        if content and (content.strip() or may_be_empty):
            return (TextPart(content),)
        if may_be_empty:
            return ()
        raise bad_request("The message has no content.", "empty_content", path)
    if not content and not may_be_empty:
        raise bad_request("The message has no content blocks.", "empty_content", path)
    return tuple(_block(block, f"{path}.{i}", role) for i, block in enumerate(content))


def _block(block: Any, path: str, role: str) -> Part:
    if not block:
        raise bad_request("The content block is empty.", "empty_block", path)
    if not isinstance(block, dict):
        raise bad_request("A content block must be an object.", "invalid_type", path)
    if "type" not in block:
        raise bad_request("The content block has no type.", "missing_type", path)
    kind = block["type"]
    if not isinstance(kind, str) or not kind.strip():
        raise bad_request("The type must be a non-empty string.", "empty_type", f"{path}.type")
    reader = _READERS.get(kind) if role == "user" or kind == "text" else None
    if reader is None:
        allowed = "text, image_url, input_audio or file" if role == "user" else "text"
        message = f"Content of role {role} may be of type {allowed}."
        raise bad_request(message, "invalid_type", f"{path}.type")
    return reader(block, path)


def _text(block: Block, path: str) -> Part:
    text = block.get("text")
    if not isinstance(text, str) or not text.strip():
        raise bad_request("The text block has no text.", "empty_text", f"{path}.text")
    return TextPart(text)


def _inner(block: Block, key: str, path: str) -> Mapping[str, Any]:
    """The object under ``key``; a bare string is what some clients send for its address."""
    inner = block.get(key)
    if isinstance(inner, str):
        return {"url": inner, "data": inner}
    return inner if isinstance(inner, dict) else {}


def _string(inner: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = inner.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _image(block: Block, path: str) -> Part:
    inner = _inner(block, "image_url", path)
    url = _string(inner, "url")
    if not url:
        raise bad_request("The image block has no URL.", "missing_url", f"{path}.image_url")
    return ImagePart(url, _string(inner, "detail") or None)


def _audio(block: Block, path: str) -> Part:
    inner = _inner(block, "input_audio", path)
    data = _string(inner, "data")
    if not data:
        raise bad_request("The audio block has no data.", "missing_data", f"{path}.input_audio")
    return AudioPart(data, _string(inner, "format") or None)


def _file(block: Block, path: str) -> Part:
    inner = _inner(block, "file", path)
    source = _string(inner, "url", "file_url", "data", "file_data")
    if source:
        return FilePart(source, _string(inner, "filename", "name") or None)
    if inner.get("file_id"):
        message = "Files by id are not kept here; send the file itself as a URL or data."
        raise bad_request(message, "invalid_value", f"{path}.file.file_id")
    raise bad_request("The file block has neither URL nor data.", "missing_data", f"{path}.file")


_READERS: dict[str, Callable[[Block, str], Part]] = {
    "text": _text,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
}
