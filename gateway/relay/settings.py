"""From the configuration to the plain values that the pool and the upstreams take.

The upstreams and the pool know nothing of the configuration; each adapter here makes its
value once per configuration snapshot, since it is asked for on every request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.conf.schema import Config
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.xai.settings import XaiSettings
from pool.policy import PoolPolicy
from pool.waiting import Patience

T = TypeVar("T")
ReadConfig = Callable[[], Config]


def per_snapshot(config: ReadConfig, build: Callable[[Config], T]) -> Callable[[], T]:
    """``build(config)``, made again only when the configuration has changed."""
    seen = config()
    built = build(seen)

    def value() -> T:
        nonlocal seen, built
        now = config()
        if now is not seen:
            seen, built = now, build(now)
        return built

    return value


def web_settings(config: ReadConfig) -> Callable[[], WebSettings]:
    return per_snapshot(config, _web)


def xai_settings(config: ReadConfig) -> Callable[[], XaiSettings]:
    return per_snapshot(config, _xai)


def pool_policy(config: ReadConfig) -> Callable[[], PoolPolicy]:
    return per_snapshot(config, _policy)


def patience(config: ReadConfig) -> Callable[[], Patience]:
    return per_snapshot(config, _patience)


def _web(config: Config) -> WebSettings:
    grok = config.grok
    return WebSettings(
        base_url=grok.base_url.rstrip("/"),
        accounts_url=grok.accounts_url.rstrip("/"),
        assets_url=grok.assets_url.rstrip("/"),
        chat_protocol=grok.chat_protocol,
        rest_form=grok.rest_form,
        upload_form="v2" if grok.media_protocol == "current" else "json",
        media_protocol=grok.media_protocol,
        legacy_media="gen2" if grok.rest_form == "mode_id" else "gen1",
        legacy_image_to_video=grok.legacy_image_to_video,
        user_agent=grok.user_agent,
        cf_clearance=grok.cf_clearance,
        cf_cookies=grok.cf_cookies,
        statsig_id=grok.statsig_id,
        temporary=grok.temporary,
        disable_memory=grok.disable_memory,
        filter_tags=tuple(grok.filter_tags),
        timeout=float(grok.timeout),
        proxy_url=grok.base_proxy_url,
    )


def _xai(config: Config) -> XaiSettings:
    return XaiSettings(base_url=config.xai.base_url.rstrip("/"), timeout=float(config.xai.timeout))


def _policy(config: Config) -> PoolPolicy:
    return PoolPolicy(
        max_concurrent=config.pool.max_concurrent_per_credential,
        max_concurrent_api=config.pool.max_concurrent_per_api_key,
        max_cooldown=float(config.pool.max_cooldown_sec),
        fail_threshold=config.token.fail_threshold,
        incident_threshold=config.pool.incident_threshold,
        incident_window=float(config.pool.incident_window_sec),
    )


def _patience(config: Config) -> Patience:
    return Patience(config.pool.wait_ms / 1000, config.pool.max_waiting)
