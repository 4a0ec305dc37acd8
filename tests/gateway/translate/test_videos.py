"""Orders in both dialects, and markup that no address can break out of."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.chat_request import to_request
from gateway.translate.videos import chat_order, job_order, video_markup
from gateway.wire.chat import ChatCompletionRequest, VideoConfig
from gateway.wire.errors import ApiError
from gateway.wire.videos import CreateVideo

HOSTILE = [
    '"><script>alert(1)</script>',
    "' onerror='alert(1)",
    "</video><img src=x onerror=alert(1)>",
    'x" autoplay="',
    "a&b<c>d",
]


class Reader(HTMLParser):
    """The elements of a piece of HTML, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@given(st.one_of(st.sampled_from(HOSTILE), st.text()), st.sampled_from(HOSTILE))
def test_no_address_breaks_out_of_the_element(url: str, poster: str) -> None:
    video, source = Reader(video_markup(url, poster, as_poster=False)).elements
    assert video[0] == "video"
    assert set(video[1]) == {"id", "controls", "preload", "poster"}
    assert source[0] == "source"
    assert set(source[1]) == {"id", "src", "type"}
    assert video[1]["poster"] == poster


@given(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE))
def test_no_address_breaks_out_of_the_link(url: str, poster: str) -> None:
    found = Reader(video_markup(url, poster, as_poster=True)).elements
    assert [tag for tag, _ in found] == ["a", "img", "span"]
    assert found[0][1]["href"] == url
    assert set(found[0][1]) == {"href", "target", "rel"}
    assert found[1][1]["src"] == poster


def test_a_video_without_a_poster_is_still_one() -> None:
    assert "poster" not in video_markup("/v.mp4", "", as_poster=False)
    assert ">Video<" in video_markup("/v.mp4", "", as_poster=True)


def prompt_of(*messages: tuple[str, Any]) -> str:
    body = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": role, "content": text} for role, text in messages]}
    )
    return chat_order(to_request(body, stream=False), None, nsfw=False)[0].prompt


def test_the_prompt_is_what_the_user_said_last() -> None:
    talk = [("system", "Be brief."), ("user", "cat"), ("assistant", "<video>"), ("user", " dog ")]
    assert prompt_of(*talk) == "dog"
    blocks = [{"type": "text", "text": "a dog"}, {"type": "text", "text": "in snow"}]
    assert prompt_of(("user", blocks)) == "a dog\nin snow"


def test_a_conversation_without_a_users_word_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        prompt_of(("system", "Be brief."))
    assert refused.value.code == "empty_content"


@pytest.mark.parametrize("preset", ["", None])
def test_an_empty_config_means_the_defaults(preset: str | None) -> None:
    body = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "waves"}]}
    )
    config = VideoConfig(aspect_ratio="", resolution="", preset=preset)
    order, picture = chat_order(to_request(body, stream=False), config, nsfw=False)
    assert (order.ratio, order.seconds, order.hd, order.preset) == ("3:2", 6, False, "custom")
    assert picture is None


@given(st.integers(100, 9999), st.integers(100, 9999))
def test_every_size_has_the_nearest_ratio_or_is_refused(width: int, height: int) -> None:
    body = CreateVideo(prompt="waves", size=f"{width}x{height}")
    try:
        order, size = job_order(body, nsfw=False)
    except ApiError as refused:
        assert refused.code == "invalid_size"
        return
    across, down = map(int, order.ratio.split(":"))
    assert abs(width / height - across / down) <= 0.031 * across / down
    assert order.hd is (min(width, height) >= 720)
    assert size == f"{width}x{height}"


@given(st.one_of(st.none(), st.integers(), st.text(max_size=4)))
def test_seconds_are_a_number_in_range_or_refused(given_seconds: Any) -> None:
    body = CreateVideo(prompt="waves", seconds=given_seconds)
    try:
        order, _ = job_order(body, nsfw=False)
    except ApiError as refused:
        assert (refused.code, refused.param) == ("invalid_seconds", "seconds")
        return
    assert 1 <= order.seconds <= 15
