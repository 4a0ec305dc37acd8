"""Who may call ``/v1``: a client key in the Authorization header, looked up in memory."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security.base import AuthBase

from gateway.api.errors import shown
from gateway.relay import runtime
from gateway.wire.errors import ApiError
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


def require_model(key: KeyRecord, model_id: str) -> None:
    """Raises ApiError 403 unless the key may use the model."""
    if key.allowed_models is not None and model_id not in key.allowed_models:
        raise ApiError(
            403,
            f"This key may not use the model {shown(model_id)}.",
            type_="permission_error",
            code="model_not_allowed",
            param="model",
        )
