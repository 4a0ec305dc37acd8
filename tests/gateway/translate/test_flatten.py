"""A conversation as one prompt for the web upstream."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.flatten import EmptyPrompt, flatten
from gateway.upstream.requests import (
    AudioPart,
    ChatRequest,
    FilePart,
    FunctionTool,
    ImagePart,
    Part,
    Role,
    TextPart,
    ToolChoice,
    ToolInvocation,
    Turn,
)


def turn(role: Role, *content: str | Part, **extra: Any) -> Turn:
    parts = tuple(TextPart(one) if isinstance(one, str) else one for one in content)
    return Turn(role, parts, **extra)


def request(*turns: Turn, **extra: Any) -> ChatRequest:
    return ChatRequest("grok-4", turns, **extra)


def prompt(*turns: Turn, **extra: Any) -> str:
    return flatten(request(*turns, **extra)).prompt


def test_it_writes_each_turn_under_its_role() -> None:
    assert (
        prompt(
            turn("system", "Answer briefly."),
            turn("user", "Hi"),
            turn("assistant", "Hello."),
            turn("user", "What is a tide?"),
        )
        == "[system]\nAnswer briefly.\n\n[user]\nHi\n\n"
        "[assistant]\nHello.\n\n[user]\nWhat is a tide?"
    )


def test_a_single_user_turn_has_the_form_too() -> None:
    assert prompt(turn("user", "Hi")) == "[user]\nHi"


def test_developer_is_system() -> None:
    assert prompt(turn("developer", "Be brief."), turn("user", "x")).startswith("[system]\nBe")


def test_parts_are_joined_by_line_breaks_and_the_whole_is_trimmed() -> None:
    assert prompt(turn("user", "a", "b "), turn("user", " c\n\n")) == "[user]\na\nb \n\n[user]\n c"


def test_empty_turns_are_left_out() -> None:
    turns = (turn("system", " \n"), turn("user", "a"), turn("assistant"), turn("user", ""))
    assert prompt(*turns) == "[user]\na"


def test_calls_and_results_of_the_history_are_written_out() -> None:
    call = ToolInvocation("call_1", "clock", '{"zone": "UTC"}')
    bare = ToolInvocation("call_2", "date", "")
    assert prompt(
        turn("user", "Time?"),
        turn("assistant", "Looking.", tool_calls=(call, bare)),
        turn("tool", "12:00", tool_call_id="call_1"),
        turn("tool", "", tool_call_id="call_2"),
        turn("tool", "spare"),
    ) == (
        "[user]\nTime?\n\n"
        "[assistant]\nLooking.\n"
        "<tool_calls>"
        "<tool_call><tool_name>clock</tool_name>"
        '<parameters>{"zone": "UTC"}</parameters></tool_call>'
        "<tool_call><tool_name>date</tool_name><parameters>{}</parameters></tool_call>"
        "</tool_calls>\n\n"
        "[tool]\nTool result (call_1): 12:00\n\n"
        "[tool]\nTool result (call_2):\n\n"
        "[tool]\nTool result: spare"
    )


def test_an_assistant_turn_of_calls_alone_is_kept() -> None:
    call = ToolInvocation("call_1", "clock", "{}")
    assert prompt(turn("assistant", tool_calls=(call,))).startswith("[assistant]\n<tool_calls>")


def test_tools_lead_as_a_system_turn() -> None:
    text = prompt(turn("system", "S"), turn("user", "U"), tools=(FunctionTool("clock"),))
    assert text.startswith("[system]\n")
    assert text.index('<tool name="clock">') < text.index("[system]\nS\n\n[user]\nU")


def test_tools_that_may_not_be_called_are_not_mentioned() -> None:
    tools = (FunctionTool("clock"),)
    assert prompt(turn("user", "U"), tools=tools, tool_choice=ToolChoice("none")) == "[user]\nU"


def test_one_call_at_a_time_is_asked_for_when_the_client_does() -> None:
    tools = (FunctionTool("clock"),)
    assert "at most one" in prompt(turn("user", "U"), tools=tools, parallel_tool_calls=False)


def test_it_hands_over_attachments_in_order_and_each_once() -> None:
    cat, dog = ImagePart("https://example.org/cat"), ImagePart("https://example.org/dog")
    notes, sound = FilePart("aGk=", "notes.txt"), AudioPart("aGk=", "wav")
    found = flatten(
        request(
            turn("user", "a", cat, notes),
            turn("assistant", "b", dog),
            turn("tool", "r", dog, tool_call_id="call_1"),
            turn("user", sound, "c", ImagePart(cat.url), dog),
        )
    )
    assert found.file_parts == (cat, notes, sound, dog)


def test_an_assistants_picture_is_no_input() -> None:
    drawn = turn("assistant", "Here.", ImagePart("https://example.org/drawn"))
    assert flatten(request(turn("user", "Draw."), drawn)).file_parts == ()


def test_an_attachment_alone_is_enough() -> None:
    cat = ImagePart("https://example.org/cat")
    found = flatten(request(turn("user", cat)))
    assert (found.prompt, found.file_parts) == ("", (cat,))


@pytest.mark.parametrize(
    "turns", [(), (turn("user", " "),), (turn("assistant", ImagePart("https://example.org/x")),)]
)
def test_nothing_at_all_is_an_error_also_with_tools(turns: tuple[Turn, ...]) -> None:
    for tools in ((), (FunctionTool("clock"),)):
        with pytest.raises(EmptyPrompt):
            flatten(request(*turns, tools=tools))


ROLES = st.sampled_from(["system", "developer", "user", "assistant"])


@given(st.lists(st.tuples(ROLES, st.text(max_size=20)), min_size=1, max_size=6))
def test_every_text_is_in_the_prompt_in_order(pairs: list[tuple[Role, str]]) -> None:
    full = [(role, text) for role, text in pairs if text.strip()]
    if not full:
        return
    text, at = prompt(*(turn(role, text) for role, text in pairs)), 0
    for _, piece in full:
        at = text.index(piece.strip(), at) + len(piece.strip())
    assert text == text.strip()
