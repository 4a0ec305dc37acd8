"""Forms with many files, as the picture routes take them."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.form_parts import FormParts, PartEnd, PartHead
from gateway.api.forms import FileRule, FormRules, read_form
from gateway.api.incoming import Incoming, attach
from gateway.api.lifetime import Lifetime
from gateway.media.formats import JPEG, PNG, WEBP
from gateway.media.store import MIB, MediaStore
from gateway.wire.errors import ApiError
from tests.gateway.api.test_uploads import END, TYPE, part
from tests.gateway.media import samples
from tests.gateway.media.test_store import files

EDITS = FormRules(
    files={
        "image": FileRule(16, 50 * MIB, aliases=("image[]",), too_many="invalid_image_count"),
        "mask": FileRule(1, 50 * MIB),
    },
    max_total=17 * 50 * MIB,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MediaStore]:
    made = MediaStore(tmp_path, reserve=0)
    yield made
    await made.aclose()


def request_of(*pieces: bytes, size: int | None = None, kind: str = TYPE) -> HttpRequest:
    """A request whose body comes in these pieces."""
    left = list(pieces)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    task = asyncio.current_task()
    assert task is not None
    request = HttpRequest()
    request.META["CONTENT_TYPE"] = kind
    attach(request, Incoming(receive, Lifetime(task), size))
    return request


async def refusal(request: HttpRequest, store: MediaStore, rules: FormRules = EDITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with read_form(request, rules, store):
            pass
    return caught.value


async def test_fields_and_sixteen_files_in_any_order(store: MediaStore, tmp_path: Path) -> None:
    pictures = list((samples.PICTURES | samples.MORE_PICTURES).values()) * 2
    body = [
        part("image[]" if number % 2 else "image", content, f"{number}.png")
        for number, content in enumerate(pictures[:16])
    ]
    body[3:3] = [part("prompt", "Füchse".encode(), None), part("mask", samples.PNG)]
    body += [part("n", b"1", None), part("n", b"2", None), END]

    async with read_form(request_of(*body), EDITS, store) as form:
        assert form.files["image"][0].part.read(1, 3) == b"PNG"
        assert [file.filename for file in form.files["image"]] == [f"{n}.png" for n in range(16)]
        assert [file.size for file in form.files["image"]] == [len(one) for one in pictures[:16]]
        assert form.value("prompt") == "Füchse"
        assert form.values["n"] == ["1", "2"]
        assert form.value("n") == "2"
        assert form.value("missing") is None
        assert len(files(tmp_path)) == 17
        checked = await store.check(form.files["mask"][0].part, (PNG, JPEG, WEBP))
        kept = await store.keep(form.files["mask"][0].part, checked, "upload-1")

    assert files(tmp_path) == [f"image/{kept.name}"]


async def test_errors_name_the_field_and_not_its_alias(store: MediaStore, tmp_path: Path) -> None:
    many = await refusal(request_of(*[part("image[]", samples.PNG)] * 17, END), store)
    assert (many.status, many.code, many.param) == (400, "invalid_image_count", "image")
    empty = await refusal(request_of(part("image[]", b""), END), store)
    assert (empty.status, empty.code, empty.param) == (400, "empty_file", "image")
    small = FormRules(files={"image": FileRule(1, 100)}, max_total=10_000)
    large = await refusal(request_of(part("image", samples.PNG), END), store, small)
    assert (large.status, large.code, large.param) == (400, "file_too_large", "image")
    total = FormRules(files={"image": FileRule()}, max_total=1000)
    both = await refusal(request_of(part("image", samples.PNG), END), store, total)
    assert (both.status, both.code, both.param) == (413, "request_too_large", "body")
    told = await refusal(request_of(b"", size=1001), store, total)
    assert (told.status, told.code, told.param) == (413, "request_too_large", "body")
    assert files(tmp_path) == []


async def test_a_request_that_is_no_form_is_told(store: MediaStore) -> None:
    request = request_of(b"")
    attach(request, None)

    assert (await refusal(request, store)).code == "form_invalid"


async def test_its_files_go_when_the_work_fails_or_is_cancelled(
    store: MediaStore, tmp_path: Path
) -> None:
    with pytest.raises(LookupError):
        async with read_form(request_of(part("image", samples.PNG), END), EDITS, store):
            assert len(files(tmp_path)) == 1
            raise LookupError
    assert files(tmp_path) == []

    inside = asyncio.Event()

    async def work() -> None:
        async with read_form(request_of(part("image", samples.PNG), END), EDITS, store):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert files(tmp_path) == []


async def test_large_files_do_not_pass_through_memory(store: MediaStore, tmp_path: Path) -> None:
    chunk = bytes(64 * 1024)
    most = EDITS.files["image"].max_bytes // len(chunk)
    head = part("image", b"")[:-2]
    body = ([head] + [chunk] * most + [b"\r\n"]) * 3 + [END]
    tracemalloc.start()

    async with read_form(request_of(*body), EDITS, store) as form:
        assert [file.size for file in form.files["image"]] == [50 * MIB] * 3

    _, most_held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_held < 5 * MIB
    assert files(tmp_path) == []


FORM = part("a", b"x\r\n--xxBOUND\r\n", None) + part("f", bytes(range(256)) * 3, "f.png") + END


def events(*pieces: bytes) -> list[tuple[str, bytes]]:
    parser, found = FormParts(TYPE), list[tuple[str, bytes]]()
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartHead):
                found.append((event.name, b""))
            elif not isinstance(event, PartEnd):
                found[-1] = (found[-1][0], found[-1][1] + event)
    parser.close()
    return found


@given(st.lists(st.integers(0, len(FORM)), max_size=12).map(sorted))
@settings(max_examples=300, deadline=None)
def test_however_a_form_is_cut_it_reads_the_same(cuts: list[int]) -> None:
    edges = [0, *cuts, len(FORM)]
    pieces = [FORM[start:end] for start, end in itertools.pairwise(edges)]

    assert events(*pieces) == events(FORM)
    assert events(FORM)[0] == ("a", b"x\r\n--xxBOUND\r\n")
    assert events(FORM)[1] == ("f", bytes(range(256)) * 3)
