"""Builds the client API and mounts its routers."""

from __future__ import annotations

from ninja import NinjaAPI

from gateway.api import chat, errors, images, media, model_list, videos
from gateway.api.auth import ClientKeyAuth
from grok2api import __version__

api = NinjaAPI(
    title="grok2api",
    version=__version__,
    urls_namespace="v1",
    auth=ClientKeyAuth(),
    docs_url=None,
    openapi_url=None,
)
errors.install(api)
api.add_router("", chat.router)
api.add_router("", model_list.router)
api.add_router("", videos.router)
api.add_router("", images.router)
api.add_router("", media.files)
api.add_router("", media.uploads)
