"""``python -m bench.serve_files``: ``/v1/files`` over a directory, without the other routes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import django
import uvicorn

urlpatterns: list[Any] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redirect", default="", help="internal address of the server in front")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
    django.setup()
    application = build(options.root, options.redirect)
    uvicorn.run(application, host="127.0.0.1", port=options.port, lifespan="off", access_log=False)


def build(root: Path, redirect: str) -> Any:
    """The ASGI application."""
    from django.urls import path
    from ninja import NinjaAPI

    from gateway.api import errors
    from gateway.api.application import ApiApplication, Limits
    from gateway.api.files import MediaServing, files_router
    from gateway.media.links import LinkPolicy, MediaLinks
    from gateway.media.store import MediaStore

    public = LinkPolicy("", signed=False, lifetime=0)
    links = MediaLinks(bytes(32), lambda: public)
    serving = MediaServing(MediaStore(root), links, lambda request: False, redirect)
    api = NinjaAPI(urls_namespace="bench-files", docs_url=None, openapi_url=None)
    errors.install(api)
    api.add_router("", files_router(lambda: serving))
    urlpatterns.append(path("v1/", api.urls))
    limits = Limits(1_000_000, 15.0, ("*",))
    return ApiApplication("bench.serve_files", lambda: limits)


if __name__ == "__main__":
    # Django finds the routes by this name, under which the module must not be loaded again.
    sys.modules["bench.serve_files"] = sys.modules["__main__"]
    main()
