"""A collector of traces on a socket of this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from tests.conftest import need


class Collector:
    """``with Collector() as collector:`` listens at ``collector.url``.

    ``spans`` are those received, ``resource`` the attributes of what sent them, ``paths``
    where it was asked. While ``may_answer`` is not set it keeps its senders waiting.
    """

    def __init__(self) -> None:
        need_opentelemetry()
        self.spans: list[Any] = []
        self.resource: dict[str, str] = {}
        self.paths: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                collector._take(body)
                collector.may_answer.wait(10)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, body: bytes) -> None:
        # The extra may be missing, and with it these; then no test comes here.
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = attributes(group.resource)
            for scope in group.scope_spans:
                self.spans += scope.spans

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def need_opentelemetry() -> None:
    """Skip the running test without the extra, or fail it where services are required."""
    need(find_spec("opentelemetry") is not None, "the extra otel")


def attributes(of: Any) -> dict[str, Any]:
    """Of a span or a resource, as plain values."""
    found = {}
    for item in of.attributes:
        kind = item.value.WhichOneof("value")
        found[item.key] = getattr(item.value, kind)
    return found
