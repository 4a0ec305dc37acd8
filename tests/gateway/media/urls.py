"""The routes for files over a store of the test's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from django.http import HttpRequest
from django.urls import path
from ninja import NinjaAPI
from ninja.security.base import AuthBase

from gateway.api import errors
from gateway.api.files import MediaServing, files_router
from gateway.api.uploads import uploads_router
from gateway.wire.errors import ApiError
from pool.keys import UnknownKey

BEARER = "Bearer sk-test"


class Current:
    """What the routes see; tests replace the values."""

    serving: MediaServing
    refuse: ApiError | None = None


class TestKey(AuthBase):
    openapi_type = "http"
    openapi_scheme = "bearer"

    async def __call__(self, request: HttpRequest) -> str:
        if not has_key(request):
            raise UnknownKey
        return "key"


def has_key(request: HttpRequest) -> bool:
    return bool(request.META.get("HTTP_AUTHORIZATION") == BEARER)


@asynccontextmanager
async def admission(request: HttpRequest) -> AsyncGenerator[None, None]:
    if Current.refuse is not None:
        raise Current.refuse
    yield


api = NinjaAPI(urls_namespace="media-tests", auth=TestKey(), docs_url=None, openapi_url=None)
errors.install(api)
api.add_router("", files_router(lambda: Current.serving))
api.add_router("", uploads_router(lambda: Current.serving, admission))
urlpatterns = [path("v1/", api.urls)]
