"""A picture socket whose pictures are as large as real ones, and come as fast as they can."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from gateway.sandbox.media_bytes import jpeg

_SILENT = logging.Logger("upstream", level=logging.CRITICAL + 1)


class PictureServer:
    """``size`` is in bytes before base64, ``pause`` in seconds before each picture; with
    ``url`` a picture is that address and has no bytes.

    ``sent_at`` are the monotonic times at which pictures were complete.
    """

    def __init__(self, size: int = 1000, pause: float = 0.0, url: str = "") -> None:
        self.blob = base64.b64encode(jpeg("x").ljust(size, b"\0")).decode()
        self.pause = pause
        self._picture = {"url": url} if url else {"blob": self.blob}
        self.sent_at: list[float] = []
        self.open = 0
        self._lock = threading.Lock()
        self._server: Server
        self._thread: threading.Thread

    @property
    def url(self) -> str:
        host, port = self._server.socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        options: dict[str, Any] = {"compression": None, "logger": _SILENT, "close_timeout": 1}
        self._server = serve(self._handle, "127.0.0.1", 0, **options)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        assert self.open == 0

    def _handle(self, socket: ServerConnection) -> None:
        with self._lock:
            self.open += 1
        try:
            number = 0
            for message in socket:
                content = json.loads(message)["item"]["content"][0]
                for _ in range(content.get("properties", {}).get("num_generations", 0)):
                    number += 1
                    time.sleep(self.pause)
                    self._send(socket, f"picture-{number}", number)
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                self.open -= 1

    def _send(self, socket: ServerConnection, name: str, number: int) -> None:
        done = {"type": "json", "current_status": "completed", "image_id": name}
        final = {"type": "image", "id": name, "percentage_complete": 100, **self._picture}
        socket.send(json.dumps(done | {"order": number % 64}))
        text = json.dumps(final)
        self.sent_at.append(time.monotonic())
        socket.send(text)
