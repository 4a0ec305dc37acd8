"""Which addresses out of an upstream frame may go on to a client."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from gateway.upstream.values import web_url

MAX_TITLE = 512
ASSET_HOSTS = frozenset({"assets.grok.com", "imagine-public.x.ai", "imgen.x.ai"})
"""Hosts of generated pictures and videos (upstream-web 1.1)."""

_USERNAME = re.compile(r"\w{1,64}", re.ASCII)
_POST_ID = re.compile(r"\d{1,32}", re.ASCII)


def post_url(username: object, post_id: object) -> str:
    """The address of a post on X, or empty (upstream-web 2.6)."""
    name, number = identifier(username).lstrip("@"), identifier(post_id)
    if not _USERNAME.fullmatch(name) or not _POST_ID.fullmatch(number):
        return ""
    return f"https://x.com/{name}/status/{number}"


def identifier(value: object) -> str:
    """An id that upstream writes as text or as a number; empty for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20:
        return str(value)
    return value if isinstance(value, str) else ""


def clip_title(value: object) -> str:
    return value[:MAX_TITLE] if isinstance(value, str) else ""


def asset_url(value: object, assets_url: str) -> str:
    """The absolute address of a generated asset, or empty for a placeholder or a foreign host.

    Relative paths belong to ``assets_url``; absolute ones must be on its host or, over
    https, on one of ``ASSET_HOSTS`` (upstream-web 7.2). ``""``, ``"/"`` and a bare
    origin are placeholders of a picture still in the making (2.4).
    """
    if not isinstance(value, str) or not value.strip("/"):
        return ""
    if "://" not in value:
        if value.startswith("//"):
            return ""
        value = f"{assets_url.rstrip('/')}/{value.lstrip('/')}"
    url = web_url(value)
    if not url:
        return ""
    parts, own = urlsplit(url), urlsplit(assets_url)
    ours = (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
    known = parts.scheme == "https" and parts.netloc in ASSET_HOSTS
    segments = parts.path.split("/")
    return url if (ours or known) and any(segments) and ".." not in segments else ""
