"""OpenAI's error envelope (http-contract section 3), and the error a bad request raises."""

from __future__ import annotations

import json
from collections.abc import Mapping


def envelope(
    message: str, type_: str, code: str | None = None, param: str | None = None
) -> dict[str, dict[str, str | None]]:
    """All four fields are always there."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


class ApiError(Exception):
    """An answer in OpenAI's envelope: everything the client will see, and nothing else."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type_
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        return json.dumps(envelope(self.message, self.type, self.code, self.param)).encode()


def bad_request(message: str, code: str | None, param: str | None) -> ApiError:
    return ApiError(400, message, code=code, param=param)
