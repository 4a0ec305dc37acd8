"""The kinds of text that settings hold, checked once, when they are set.

The reasons raised here reach logs and operators, so none of them repeats the value.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def one_line(text: str) -> str:
    """Refuse what can neither be stored as UTF-8 nor be sent in a header."""
    if any(ord(c) < 0x20 or ord(c) == 0x7F or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ValueError("must be one line without control characters")
    return text


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        usable = False
    if not usable or not parts.hostname or any(c.isspace() for c in text):
        raise ValueError("must be an address such as https://host:port")
    return parts


def web_address(text: str) -> str:
    """An http(s) address without credentials, query or fragment; no slash at the end."""
    text = text.strip()
    parts = _split(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError("must have no user name, query or fragment")
    return text.rstrip("/")


def optional_web_address(text: str) -> str:
    return web_address(text) if text.strip() else ""


def proxy_address(text: str) -> str:
    """Empty, or a proxy address, which may carry ``user:password@``."""
    text = text.strip()
    if text and _split(text).scheme not in PROXY_SCHEMES:
        raise ValueError("must begin with http://, https://, socks5:// or socks5h://")
    return text


def cors_origin(text: str) -> str:
    """``*`` or one origin: scheme, host, and port where it is not the usual one."""
    if text == "*":
        return text
    origin = web_address(text)
    if urlsplit(origin).path:
        raise ValueError('must be "*" or an origin without a path')
    return origin


def iso_date(text: str) -> str:
    """Empty, or a day as YYYY-MM-DD."""
    if text:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError("must be a day as YYYY-MM-DD") from None
        if day.isoformat() != text:
            raise ValueError("must be a day as YYYY-MM-DD")
    return text


def image_method(value: object) -> object:
    """The current name for the four older ones of the same method (http-contract 5.3)."""
    older = ("imagine_ws", "experimental", "new", "new_method")
    return "imagine_ws_experimental" if value in older else value


Text = Annotated[str, Field(max_length=8192), AfterValidator(one_line)]
Secret = Annotated[Text, Field(repr=False, json_schema_extra={"secret": True})]
WebAddress = Annotated[Text, AfterValidator(web_address)]
OptionalWebAddress = Annotated[Text, AfterValidator(optional_web_address)]
ProxyAddress = Annotated[Secret, AfterValidator(proxy_address)]
Origin = Annotated[Text, AfterValidator(cors_origin)]
Day = Annotated[Text, AfterValidator(iso_date)]
Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(one_line)]
UserName = Annotated[str, Field(min_length=1, max_length=150), AfterValidator(one_line)]
Texts = Annotated[tuple[Name, ...], Field(strict=False, max_length=100)]
Origins = Annotated[tuple[Origin, ...], Field(strict=False, max_length=100)]
StatusCode = Annotated[int, Field(ge=100, le=599)]
StatusCodes = Annotated[tuple[StatusCode, ...], Field(strict=False, max_length=100)]
ImageMethod = Annotated[Literal["legacy", "imagine_ws_experimental"], BeforeValidator(image_method)]
