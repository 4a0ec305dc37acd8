"""What an operator can set about the way to grok.com."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.upstream.http import Timeouts

DEFAULT_FILTER_TAGS = ("xaiartifact", "xai:tool_usage_card", "grok:render")
"""Markup that never reaches a client (upstream-web 2.6)."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """One consistent reading of the ``grok`` settings.

    Addresses carry no trailing slash. ``cf_cookies`` is a cookie string as the operator
    copied it; only ``__cf_bm``, ``_cfuvid`` and ``cf_chl_*`` are sent on (upstream-web
    1.2). ``timeout`` is the longest silence borne, in seconds: to the first header and
    between reads; ``video_timeout`` the same while a video is made, ``picture_grace``
    while only the bytes of finished pictures are missing.

    ``media_protocol`` picks the media payloads (the table of generations), and
    ``legacy_media`` which of the older ones. The current one knows no image-to-video;
    ``legacy_image_to_video`` has it made the Gen 2 way. Values that are or may hold
    secrets stay out of the repr.
    """

    base_url: str = "https://grok.com"
    accounts_url: str = "https://accounts.x.ai"
    assets_url: str = "https://assets.grok.com"
    chat_protocol: Literal["mgw", "rest"] = "mgw"
    rest_form: Literal["mode_id", "model_name"] = "mode_id"
    upload_form: Literal["v2", "json"] = "v2"
    media_protocol: Literal["current", "legacy"] = "current"
    legacy_media: Literal["gen1", "gen2"] = "gen1"
    legacy_image_to_video: bool = False
    user_agent: str = ""
    cf_clearance: str = field(default="", repr=False)
    cf_cookies: str = field(default="", repr=False)
    statsig_id: str = field(default="", repr=False)
    temporary: bool = True
    disable_memory: bool = True
    filter_tags: tuple[str, ...] = DEFAULT_FILTER_TAGS
    timeout: float = 120.0
    video_timeout: float = 300.0
    picture_grace: float = 15.0
    connect_timeout: float = 20.0
    proxy_url: str = field(default="", repr=False)

    def timeouts(self, at_most: float | None = None, silence: float | None = None) -> Timeouts:
        """Time-outs of one exchange; ``at_most`` bounds the wait of a short call.

        ``silence`` takes the place of ``timeout``.
        """
        read = self.timeout if silence is None else silence
        return Timeouts(
            connect=self.connect_timeout, read=read if at_most is None else min(read, at_most)
        )
