"""The HTTP transports in use, one per upstream, replaced when a proxy setting changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.conf.schema import Config
from gateway.upstream.http import Http, open_transport

RETIRE_AFTER = 600.0
"""Seconds a replaced transport stays open for the streams still running on it."""


class Transports:
    """``web`` goes through ``grok.base_proxy_url``, ``assets`` through ``grok.asset_proxy_url``
    or, where that is empty, the same; ``xai`` is direct."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._web: Http | None = None
        self._assets: Http | None = None
        self._xai: Http | None = None
        self._retired: dict[asyncio.TimerHandle, Http] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def web(self) -> Http:
        if self._web is None:
            self._web = Http(open_transport(self._config().grok.base_proxy_url))
        return self._web

    def assets(self) -> Http:
        if self._assets is None:
            self._assets = Http(open_transport(_asset_proxy(self._config())))
        return self._assets

    def xai(self) -> Http:
        if self._xai is None:
            self._xai = Http(open_transport())
        return self._xai

    def config_changed(self, old: Config, new: Config) -> None:
        if old.grok.base_proxy_url != new.grok.base_proxy_url and self._web is not None:
            self._retire(self._web)
            self._web = None
        if _asset_proxy(old) != _asset_proxy(new) and self._assets is not None:
            self._retire(self._assets)
            self._assets = None

    def _retire(self, http: Http) -> None:
        loop = asyncio.get_running_loop()

        def close() -> None:
            del self._retired[handle]
            task = loop.create_task(http.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        handle = loop.call_later(RETIRE_AFTER, close)
        self._retired[handle] = http

    async def aclose(self) -> None:
        for handle in self._retired:
            handle.cancel()
        for http in (self._web, self._assets, self._xai, *self._retired.values()):
            if http is not None:
                await http.aclose()
        if self._closing:
            await asyncio.wait(self._closing)


def _asset_proxy(config: Config) -> str:
    return config.grok.asset_proxy_url or config.grok.base_proxy_url
