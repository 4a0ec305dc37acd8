"""Values out of an upstream's JSON, taken on trust in nothing."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

MAX_URL = 8 * 1024
"""Characters of an address (upstream-web 2.6)."""

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f<>\"\\]")


def percentage(value: object) -> int:
    """``value`` as a whole number from 0 to 100; anything odd is 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return 0
    return int(min(max(value, 0), 100))


def web_url(value: object) -> str:
    """``value`` if it is an absolute http(s) address without userinfo, else empty."""
    if not isinstance(value, str) or len(value) > MAX_URL or _NOT_IN_URLS.search(value):
        return ""
    try:
        parts = urlsplit(value)
        fit = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return ""
    return value if fit else ""
