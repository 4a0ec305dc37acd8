"""Who may call ``/v1``: a client key in the Authorization header, looked up in memory."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security.base import AuthBase

from gateway.relay import runtime
from pool.keys import KeyRecord, KeyRefused, UnknownKey


class ClientKeyAuth(AuthBase):
    """Reads the header itself, since ninja's own scheme would log it under DEBUG."""

    openapi_type = "http"
    openapi_scheme = "bearer"

    async def __call__(self, request: HttpRequest) -> KeyRecord:
        """The key's record, which becomes ``request.auth``; raises KeyRefused."""
        return key_of(request)


def key_of(request: HttpRequest) -> KeyRecord:
    """The client key that a request brings; raises KeyRefused."""
    scheme, _, clear = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnknownKey
    return runtime.current().keys.lookup(clear.strip())


def has_key(request: HttpRequest) -> bool:
    """Whether a request brings a client key that is good."""
    try:
        key_of(request)
    except KeyRefused:
        return False
    return True
