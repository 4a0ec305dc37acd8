"""What an operator pastes, reduced to the one secret in it (upstream-web 1.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pool.models import Kind

MAX_SECRET_BYTES = 16 * 1024
_LEADING_SSO = re.compile(r"(?:sso\s*=\s*)+", re.IGNORECASE)
_API_KEY = re.compile(r"xai-[!-~]+")
_API_KEY_LENGTHS = range(20, 513)
# RFC 6265 cookie-octet: printable ASCII but space, quote, comma, semicolon and backslash.
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]+")


class BadSecret(ValueError):
    """The text holds no usable secret. ``reason`` says why, without any of the text."""

    def __init__(self, reason: Promise) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Secret:
    """``value`` is what is sealed and replayed, ``identity`` what makes two secrets the same."""

    value: str = field(repr=False)
    identity: str = field(repr=False)


def normalise(text: str, kind: str) -> Secret:
    """One secret from a bare token, ``sso=...`` or a whole cookie string; raises BadSecret.

    A distinct ``sso-rw`` is kept in ``value`` as ``sso=<t>;sso-rw=<u>``; the identity is
    always the bare ``sso`` value. For ``Kind.API`` the text is the key itself.
    """
    text = text.replace("\r", "").replace("\n", "").replace("\0", "").strip("\ufeff").strip()
    if not text:
        raise BadSecret(_("empty"))
    return _api_key(text) if kind == Kind.API else _session(text)


def identity_of(value: str) -> str:
    """The identity in a stored ``Secret.value``."""
    return value.removeprefix("sso=").partition(";")[0] if ";" in value else value


def _api_key(text: str) -> Secret:
    if not _API_KEY.fullmatch(text):
        raise BadSecret(_("not an xAI key: those begin with xai- and hold no spaces"))
    if len(text) not in _API_KEY_LENGTHS:
        raise BadSecret(_("not an xAI key: wrong length"))
    return Secret(text, text)


def _session(text: str) -> Secret:
    if text[:7].lower() == "cookie:":
        text = text[7:].strip()
    bare, twin = _from_cookies(text) if ";" in text else (_without_name(text), "")
    _check_cookie_value(bare)
    if bare.startswith(("{", "[")):
        raise BadSecret(_("looks like JSON, not a token"))
    if bare.startswith("xai-"):
        raise BadSecret(_("looks like an xAI key, not a web session"))
    if not twin or twin == bare:
        return Secret(bare, bare)
    _check_cookie_value(twin)
    return Secret(f"sso={bare};sso-rw={twin}", bare)


def _without_name(text: str) -> str:
    if text[:7].lower() == "sso-rw=":
        raise BadSecret(_("no sso cookie in it"))
    named = _LEADING_SSO.match(text)
    return text[named.end() :] if named else text


def _from_cookies(text: str) -> tuple[str, str]:
    """The sso and sso-rw values; a nameless first part is a bare token."""
    parts = [part.strip() for part in text.split(";")]
    cookies: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if equals:
            cookies.setdefault(name.strip().lower(), value.strip())
    bare = cookies.get("sso")
    if bare is None:
        bare = parts[0]
        # Base64 padding is part of a bare token; an "=" further in makes it another cookie.
        if "=" in bare.rstrip("="):
            raise BadSecret(_("no sso cookie in it"))
    return bare, cookies.get("sso-rw", "")


def _check_cookie_value(value: str) -> None:
    if not value:
        raise BadSecret(_("empty"))
    if len(value) > MAX_SECRET_BYTES:
        raise BadSecret(_("longer than 16 KiB"))
    if not _COOKIE_VALUE.fullmatch(value):
        raise BadSecret(_("holds a character that no cookie value may hold"))
