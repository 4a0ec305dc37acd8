"""``GET`` and ``HEAD`` of ``/v1/files/{image|video}/{name}``.

Nobody signs in here: a page shows a picture by its address alone. The address carries the
permission (``gateway.media.links``), and a valid client key in the header does as well, for
programs that kept the name and not the signature. Names are unguessable and never listed to
clients, so a key opens what its owner has been told of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from ninja import Router

from gateway.api.file_responses import answer_with
from gateway.api.media_errors import told_clients
from gateway.media.links import LinkRefused, MediaLinks
from gateway.media.names import as_kind, safe_name
from gateway.media.store import MediaStore
from gateway.wire.errors import ApiError

YEAR = 31_536_000


@dataclass(frozen=True, slots=True)
class MediaServing:
    """What the routes for files need.

    ``accel_redirect`` is an internal address of the server in front ("": files are sent from
    here). ``has_key`` says whether a request carries a valid client key.
    """

    store: MediaStore
    links: MediaLinks
    has_key: Callable[[HttpRequest], bool]
    accel_redirect: str = ""


def files_router(serving: Callable[[], MediaServing]) -> Router:
    """``serving`` is asked on every request."""
    router = Router(tags=["files"])

    @router.api_operation(["GET", "HEAD"], "/files/{kind}/{path:name}", auth=None, url_name="file")
    async def read(request: HttpRequest, kind: str, name: str) -> HttpResponse:
        """A picture or a video, whole or in part."""
        return await _answer(request, serving(), kind, name)

    return router


async def _answer(
    request: HttpRequest, serving: MediaServing, kind: str, name: str
) -> HttpResponse:
    # Before the disk is asked: who may not read learns nothing of what is there.
    cache_control = _admit(request, serving, kind, name)
    with told_clients():
        known = as_kind(kind)
        opened = await serving.store.open(known, safe_name(name))
    redirect = serving.accel_redirect
    if redirect:
        redirect = f"{redirect.rstrip('/')}/{known}/{opened.name}"
    return answer_with(request, opened, cache_control, redirect)


def _admit(request: HttpRequest, serving: MediaServing, kind: str, name: str) -> str:
    """How long the answer may be kept, and by whom; raises ApiError 403."""
    if not serving.links.policy().signed:
        return f"public, max-age={YEAR}, immutable"
    expires, signature = request.GET.get("exp", ""), request.GET.get("sig", "")
    try:
        left = serving.links.verify(kind, name.replace("/", "-"), expires, signature)
    except LinkRefused as error:
        if serving.has_key(request):
            return f"private, max-age={YEAR}, immutable"
        raise _refusal(error) from error
    # No longer than the link: a copy in between must not outlive it.
    return f"private, max-age={min(left, YEAR)}, immutable"


def _refusal(error: LinkRefused) -> ApiError:
    if error.expired:
        text, code = "This link has expired.", "link_expired"
    else:
        text, code = "This file needs a signed link or an API key.", "invalid_link"
    return ApiError(403, text, type_="permission_error", code=code)
