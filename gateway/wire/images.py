"""``/v1/images/*``: what a client may send (http-contract 5.4, 5.5; OpenAI's API)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from gateway.wire.chat import WireModel
from gateway.wire.errors import ApiError, bad_request
from gateway.wire.parsing import first_problem

GENERATION_MODEL = "grok-imagine-1.0"
EDIT_MODEL = "grok-imagine-1.0-edit"
DEFAULT_SIZE = "1024x1024"
MAX_PICTURES = 10
MAX_STREAMED = 2
MAX_INPUTS = 16
RESPONSE_FORMATS = ("url", "b64_json", "base64")

Fields = TypeVar("Fields", bound="ImageOptions")
Count = Annotated[int, Field(ge=1, le=MAX_PICTURES)]
Concurrency = Annotated[int, Field(ge=1, le=3)]


class ImageOptions(WireModel):
    """The fields that every way to a picture has. Null is the same as absent."""

    model: str | None = None
    n: Count | None = None
    size: str | None = None
    quality: str | None = None
    style: str | None = None
    response_format: str | None = None
    stream: bool | None = None
    concurrency: Concurrency | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    user: str | None = None

    @property
    def count(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def streams(self) -> bool:
        return bool(self.stream)


class ImageGenerationBody(ImageOptions):
    prompt: str


class ImageReference(WireModel):
    """A picture by address or ``data:`` URI, under either of its names."""

    image_url: str | None = None
    url: str | None = None


class ImageEditBody(ImageOptions):
    """The JSON form of an edit: ``image`` or ``images``, one or several."""

    prompt: str
    image: str | ImageReference | list[str | ImageReference] | None = None
    images: str | ImageReference | list[str | ImageReference] | None = None
    mask: Any = None

    @property
    def sources(self) -> list[str]:
        """The addresses, in order; an empty one where none was given."""
        found: list[str | ImageReference] = []
        for given in (self.image, self.images):
            if isinstance(given, list):
                found += given
            elif given is not None:
                found.append(given)
        return [_address(one).strip() for one in found]


class ImageEditFields(ImageOptions):
    """The plain fields of an edit's form."""

    prompt: str


class ImageVariationFields(ImageOptions):
    """The plain fields of a variation's form; there is no prompt."""


def _address(given: str | ImageReference) -> str:
    if isinstance(given, str):
        return given
    return given.image_url or given.url or ""


def parse_fields(model: type[Fields], values: Mapping[str, str]) -> Fields:
    """The plain fields of a form, whose values are all text and count as absent when empty.

    Raises ApiError 400. A number out of range is named without ``body.``, as the contract has
    it for forms.
    """
    given = {name: value for name, value in values.items() if value or name == "prompt"}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _named_as_in_forms(first_problem(error, given)) from None


def _named_as_in_forms(problem: ApiError) -> ApiError:
    if problem.code in {"less_than_equal", "greater_than_equal"}:
        problem.param = (problem.param or "").removeprefix("body.")
    return problem


def check_prompt(prompt: str) -> str:
    """Raises ApiError 400 ``empty_prompt``."""
    if not prompt.strip():
        raise bad_request("The prompt is empty.", "empty_prompt", "prompt")
    return prompt


def check_options(options: ImageOptions, default_format: str) -> str:
    """The response format. Raises ApiError 400 for what the schema alone cannot see."""
    chosen = (options.response_format or default_format).strip().lower()
    if chosen not in RESPONSE_FORMATS:
        text = f"response_format must be one of: {', '.join(RESPONSE_FORMATS)}."
        raise bad_request(text, "invalid_response_format", "response_format")
    if options.streams and options.count > MAX_STREAMED:
        text = f"Only {MAX_STREAMED} pictures or fewer can be streamed."
        raise bad_request(text, "invalid_stream_n", "stream")
    return chosen
