"""From body bytes to a validated model, or to one clear error naming the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from gateway.wire.errors import ApiError, bad_request

Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], body: bytes) -> Model:
    """Raises ApiError 400: ``json_invalid`` or the validator's id, with its ``body.`` path."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise bad_request(f"The body is not valid JSON: {error}.", "json_invalid", "body") from None
    if not isinstance(data, dict):
        raise bad_request("The body must be a JSON object.", "dict_type", "body")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise first_problem(error, data) from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.", "json_invalid", "body") from None


def first_problem(error: ValidationError, data: Any) -> ApiError:
    """The first of pydantic's complaints about ``data``; its path leaves list indexes out."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(["body", *_fields(problem["loc"], data, problem["type"] == "missing")])
    return bad_request(f"{path}: {problem['msg']}.", problem["type"], path)


def _fields(location: Sequence[int | str], data: Any, missing: bool) -> Iterator[str]:
    """The field names along ``location``.

    Members of a union, which pydantic puts in between, are no fields of the body: they
    are told by not being there.
    """
    here, last = data, len(location) - 1
    for at, part in enumerate(location):
        if isinstance(here, dict) and part in here:
            yield str(part)
            here = here[part]
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part]
        elif missing and at == last:
            yield str(part)
