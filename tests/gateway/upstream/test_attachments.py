"""Attachments become bytes once, checked, under a safe name."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.attachments import (
    MAX_PLAIN,
    MAX_TOTAL_BYTES,
    AttachmentError,
    AttachmentLoader,
)
from gateway.upstream.fetch import (
    MAX_BYTES,
    FetchError,
    FetchFailed,
    FetchRefused,
    FileTooLarge,
    WrongFileType,
)
from gateway.upstream.filetypes import KNOWN_TYPES, MAX_NAME, safe_name, type_of_format
from gateway.upstream.requests import AudioPart, FetchedFile, FilePart, ImagePart, Part, TextPart

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
WAV = b"RIFF\0\0\0\0WAVEfmt "
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{b64(content)}"


class Fetcher:
    """Answers every URL with one file or one error, when let go."""

    def __init__(self, answer: FetchedFile | FetchError | None = None) -> None:
        self.answer = answer or FetchedFile("a.png", "image/png", PNG)
        self.asked: list[tuple[str, Set[str], str]] = []
        self.was_asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, url: str, *, accept: Set[str], name_hint: str = "") -> FetchedFile:
        self.asked.append((url, accept, name_hint))
        self.was_asked.set()
        await self.go.wait()
        if isinstance(self.answer, FetchError):
            raise self.answer
        return self.answer


async def load(part: Part) -> FetchedFile:
    return await AttachmentLoader(Fetcher()).load(part)


async def error_of(part: Part) -> AttachmentError:
    with pytest.raises(AttachmentError) as caught:
        await load(part)
    return caught.value


async def test_it_reads_a_picture_from_a_data_uri() -> None:
    found = await load(ImagePart(data_uri("image/png", PNG)))
    assert found == FetchedFile("image.png", "image/png", PNG)


@pytest.mark.parametrize(
    ("part", "name", "mime"),
    [
        (ImagePart(data_uri("image/jpeg", PNG)), "image.png", "image/png"),
        (ImagePart(data_uri("", PNG)), "image.png", "image/png"),
        (ImagePart("DATA:image/png;BASE64," + b64(PNG)), "image.png", "image/png"),
        (ImagePart(b64(PNG)), "image.png", "image/png"),
        (AudioPart(b64(WAV), "wav"), "audio.wav", "audio/wav"),
        (AudioPart(b64(WAV)), "audio.wav", "audio/wav"),
        (AudioPart(b64(b"sound"), "mp3"), "audio.mp3", "audio/mpeg"),
        (AudioPart(b64(b"OggS...."), "mp3"), "audio.ogg", "audio/ogg"),
        (AudioPart(b64(b"\0\0\0\x20ftypM4A ")), "audio.m4a", "audio/mp4"),
        (AudioPart(b64(b"fLaC")), "audio.flac", "audio/flac"),
        (
            AudioPart(data_uri("audio/webm;codecs=opus", b"\x1aE\xdf\xa3")),
            "audio.webm",
            "audio/webm",
        ),
        (FilePart(data_uri("application/pdf", b"%PDF-1"), "a.pdf"), "a.pdf", "application/pdf"),
        (FilePart(b64(b"%PDF-1")), "file.pdf", "application/pdf"),
        (FilePart(b64(b"# hi"), "read me.md"), "read me.md", "text/markdown"),
        (FilePart(data_uri("text/plain", b"a,b"), "x.csv"), "x.csv", "text/csv"),
        (FilePart(data_uri("text/plain", b"hi"), "x"), "x.txt", "text/plain"),
        (FilePart("data:text/plain,a%20b", "x.txt"), "x.txt", "text/plain"),
        (FilePart(data_uri(DOCX, b"PK"), "x.docx"), "x.docx", DOCX),
        (FilePart(data_uri("image/png", PNG), "x.jpg"), "x.png", "image/png"),
        (FilePart(data_uri("text/html", b"<p>"), "x.htm"), "x.htm", "text/html"),
    ],
)
async def test_it_takes_every_documented_form(part: Part, name: str, mime: str) -> None:
    found = await load(part)
    assert (found.name, found.mime_type) == (name, mime)


async def test_it_undoes_percent_encoding_in_a_plain_data_uri() -> None:
    assert (await load(FilePart("data:text/plain,a%20b%2C", "x.txt"))).content == b"a b,"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (ImagePart(""), "invalid_image_url"),
        (ImagePart("not base64!"), "invalid_image_url"),
        (ImagePart("data:image/png;base64"), "invalid_image_url"),
        (ImagePart("data:image/png;base64,"), "invalid_image_url"),
        (ImagePart(data_uri("image/png", PNG) + "\n!"), "invalid_image_url"),
        (ImagePart(data_uri("image/png", PNG)[:-1]), "invalid_image_url"),
        (
            ImagePart("data:image/png;base64," + b64(PNG)[:4] + "\n" + b64(PNG)[4:]),
            "invalid_image_url",
        ),
        (ImagePart(data_uri("image/png", b"<html>")), "unsupported_file_type"),
        (ImagePart(data_uri("image/svg+xml", b"<svg/>")), "unsupported_file_type"),
        (ImagePart(data_uri("application/pdf", b"%PDF-")), "unsupported_file_type"),
        (ImagePart("file:///etc/passwd"), "url_not_allowed"),
        (ImagePart("ftp://example.org/a.png"), "url_not_allowed"),
        (ImagePart("javascript:alert(1)"), "url_not_allowed"),
        (AudioPart("***"), "invalid_audio"),
        (AudioPart(b64(b"noise")), "unsupported_file_type"),
        (AudioPart(b64(PNG), "wav"), "unsupported_file_type"),
        (FilePart("é"), "invalid_file"),
        (FilePart("data:text/plain"), "invalid_file"),
        (FilePart(b64(b"MZ"), "setup.exe"), "unsupported_file_type"),
        (FilePart(data_uri("application/zip", b"PK"), "a.zip"), "unsupported_file_type"),
        (FilePart(data_uri("text/plain", PNG), "a.txt"), "unsupported_file_type"),
        (FilePart(b64(b"?")), "unsupported_file_type"),
    ],
)
async def test_it_says_what_is_wrong(part: Part, code: str) -> None:
    error = await error_of(part)
    assert error.code == code
    assert error.message


async def test_it_never_repeats_what_it_was_given() -> None:
    for part in (ImagePart("planted!"), FilePart("ftp://planted"), AudioPart("data:planted")):
        assert "planted" not in str(await error_of(part))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FetchRefused("no"), "url_not_allowed"),
        (FetchFailed("no"), "url_fetch_failed"),
        (FileTooLarge("no"), "file_too_large"),
        (WrongFileType("no"), "unsupported_file_type"),
    ],
)
async def test_it_passes_on_the_fetchers_reason(error: FetchError, code: str) -> None:
    with pytest.raises(AttachmentError, match="no") as caught:
        await AttachmentLoader(Fetcher(error)).load(ImagePart("https://example.org/a.png"))
    assert caught.value.code == code


async def test_it_asks_the_fetcher_for_the_types_of_the_part() -> None:
    fetcher = Fetcher()
    loader = AttachmentLoader(fetcher)
    await loader.load(ImagePart("https://example.org/a"))
    await loader.load(AudioPart("HTTP://example.org/b"))
    await loader.load(FilePart("https://example.org/c", "c.pdf"))
    kinds = [
        {kind for kind in ("image/png", "audio/wav", "application/pdf") if kind in accept}
        for _, accept, _ in fetcher.asked
    ]
    assert kinds == [{"image/png"}, {"audio/wav"}, {"image/png", "application/pdf"}]
    assert [hint for _, _, hint in fetcher.asked] == ["", "", "c.pdf"]


async def test_it_loads_the_same_part_once_also_at_the_same_time() -> None:
    fetcher = Fetcher()
    loader = AttachmentLoader(fetcher)
    url = "https://example.org/a.png"
    found = await asyncio.gather(*(loader.load(ImagePart(url)) for _ in range(5)))
    found.append(await loader.load(ImagePart(url)))
    assert len(fetcher.asked) == 1
    assert all(one is found[0] for one in found)


async def test_it_does_not_try_again_what_failed() -> None:
    fetcher = Fetcher(FetchFailed("no"))
    loader = AttachmentLoader(fetcher)
    for _ in range(2):
        with pytest.raises(AttachmentError, match="no"):
            await loader.load(ImagePart("https://example.org/a.png"))
    assert len(fetcher.asked) == 1


async def test_a_cancelled_load_is_taken_over_by_the_one_who_waits() -> None:
    fetcher = Fetcher()
    fetcher.go.clear()
    loader = AttachmentLoader(fetcher)
    part = ImagePart("https://example.org/a.png")
    first, second = (asyncio.ensure_future(loader.load(part)) for _ in range(2))
    await fetcher.was_asked.wait()
    first.cancel()
    fetcher.go.set()
    assert (await second).content == PNG
    assert first.cancelled()
    assert len(fetcher.asked) == 2


async def test_it_takes_eight_parts_and_not_nine() -> None:
    loader = AttachmentLoader(Fetcher())
    parts = [ImagePart(f"https://example.org/{n}.png") for n in range(9)]
    for part in parts[:8] * 2:
        await loader.load(part)
    with pytest.raises(AttachmentError, match="at most 8"):
        await loader.load(parts[8])


@pytest.mark.parametrize("spare", [0, -1, -1000])
async def test_it_takes_32_mib_and_no_byte_more(spare: int) -> None:
    content = b"%PDF-" + bytes(MAX_BYTES - spare - 5)
    for source in (b64(content), data_uri("application/pdf", content)):
        if spare >= 0:
            assert len((await load(FilePart(source))).content) == MAX_BYTES
        else:
            assert (await error_of(FilePart(source))).code == "file_too_large"


async def test_it_takes_4_mib_of_plain_data_uri_and_no_character_more() -> None:
    uri = "data:text/plain," + "x" * MAX_PLAIN
    assert len((await load(FilePart(uri))).content) == MAX_PLAIN
    assert (await error_of(FilePart(uri + "x"))).code == "file_too_large"


async def test_it_takes_64_mib_together_and_no_byte_more() -> None:
    fetcher = Fetcher(FetchedFile("a.png", "image/png", bytes(MAX_TOTAL_BYTES // 2)))
    loader = AttachmentLoader(fetcher)
    for number in range(2):
        await loader.load(ImagePart(f"https://example.org/{number}"))
    fetcher.answer = FetchedFile("a.png", "image/png", b"x")
    with pytest.raises(AttachmentError) as caught:
        await loader.load(ImagePart("https://example.org/2"))
    assert caught.value.code == "file_too_large"


async def test_a_compressed_pixel_bomb_stays_compressed() -> None:
    bomb = PNG + zlib.compress(b"\0" * 10_000_000)
    assert (await load(ImagePart(data_uri("image/png", bomb)))).content == bomb


async def test_a_text_part_is_no_attachment() -> None:
    with pytest.raises(TypeError):
        await load(TextPart("hi"))


@pytest.mark.parametrize(
    ("given_name", "mime", "name"),
    [
        ("../../etc/passwd", "text/plain", "passwd.txt"),
        ("C:\\Users\\me\\cv.docx", DOCX, "cv.docx"),
        ("a\r\nSet-Cookie: x.pdf", "application/pdf", "aSet-Cookie: x.pdf"),
        ("evil\u202efdp.exe", "application/pdf", "evilfdp.exe.pdf"),
        ("photo.JPEG", "image/jpeg", "photo.JPEG"),
        ("photo.png", "image/jpeg", "photo.jpg"),
        (".hidden", "text/plain", "hidden.txt"),
        ("...", "image/png", "image.png"),
        ("", "application/pdf", "file.pdf"),
        ("汇报 v1.2", "application/pdf", "汇报 v1.2.pdf"),
        ("\ud800.txt", "text/plain", "txt.txt"),
    ],
)
def test_it_makes_names_safe(given_name: str, mime: str, name: str) -> None:
    assert safe_name(given_name, mime) == name


@given(st.text(max_size=400), st.sampled_from(sorted(KNOWN_TYPES)))
def test_every_name_is_short_printable_and_fits_its_type(text: str, mime: str) -> None:
    name = safe_name(text, mime)
    assert len(name) <= MAX_NAME
    assert not set(name) & set("/\\\r\n\0")
    assert name.encode()
    assert type_of_format(name.rpartition(".")[2]) == mime
    assert not name.startswith(".")
