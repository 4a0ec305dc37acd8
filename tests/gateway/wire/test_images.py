"""The bodies and forms of ``/v1/images``."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.wire.errors import ApiError
from gateway.wire.images import (
    ImageEditBody,
    ImageEditFields,
    ImageGenerationBody,
    check_options,
    parse_fields,
)


def test_what_is_null_is_as_good_as_absent() -> None:
    fields = ("model", "n", "size", "quality", "style", "response_format", "stream", "concurrency")
    body = ImageGenerationBody(prompt="x", **dict.fromkeys(fields))

    assert (body.count, body.streams) == (1, False)
    assert check_options(body, "url") == "url"


@pytest.mark.parametrize(("given", "found"), [
    ({}, []),
    ({"image": "a"}, ["a"]),
    ({"image": ["a", {"url": "b"}]}, ["a", "b"]),
    ({"images": [{"image_url": "a"}, {"image_url": " b "}]}, ["a", "b"]),
    ({"image": "a", "images": ["b"]}, ["a", "b"]),
    ({"image": {"file_id": "f"}}, [""]),
])  # fmt: skip
def test_the_pictures_of_an_edit_come_in_many_shapes(
    given: dict[str, Any], found: list[str]
) -> None:
    assert ImageEditBody(prompt="x", **given).sources == found


def test_a_forms_values_are_read_as_what_they_mean() -> None:
    values = {"prompt": "blue", "n": "3", "stream": "true", "size": "", "other": "1"}
    fields = parse_fields(ImageEditFields, values)

    assert (fields.prompt, fields.count, fields.streams, fields.size) == ("blue", 3, True, None)


@pytest.mark.parametrize(("values", "code", "param"), [
    ({"prompt": "x", "n": "0"}, "greater_than_equal", "n"),
    ({"prompt": "x", "n": "11"}, "less_than_equal", "n"),
    ({"prompt": "x", "n": "1.5"}, "int_parsing", "body.n"),
    ({}, "missing", "body.prompt"),
])  # fmt: skip
def test_a_form_is_refused_in_the_contracts_words(
    values: dict[str, str], code: str, param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        parse_fields(ImageEditFields, values)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(("asked", "usual", "chosen"), [
    (None, "base64", "base64"), ("URL", "base64", "url"), (" b64_json ", "url", "b64_json"),
    ("", "url", "url"),
])  # fmt: skip
def test_the_format_is_read_in_any_case(asked: str | None, usual: str, chosen: str) -> None:
    body = ImageGenerationBody(prompt="x", response_format=asked)

    assert check_options(body, usual) == chosen
