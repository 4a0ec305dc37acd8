"""Function tools through the prompt: what we ask for and what we find in the answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.tool_markup import read_calls, write_calls
from gateway.translate.tool_prompt import ToolCallFilter, render_tools
from gateway.upstream.events import ToolCall
from gateway.upstream.requests import FunctionTool, ToolChoice

WEATHER = FunctionTool(
    "get_weather",
    "Weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = FunctionTool("clock")
TOOLS = (WEATHER, CLOCK)

Outcome = tuple[str, list[tuple[str, str]]]


def new_filter(tools: Sequence[FunctionTool] = TOOLS) -> ToolCallFilter:
    numbers = itertools.count()
    return ToolCallFilter(tools, lambda: f"{next(numbers):024d}")


def run(pieces: Sequence[str], tools: Sequence[FunctionTool] = TOOLS) -> Outcome:
    """All the text that came out, and all the calls, for an answer in these pieces."""
    made = new_filter(tools)
    outputs = [*map(made.feed, pieces), made.finish()]
    calls = [call for _, found in outputs for call in found]
    assert [call.id for call in calls] == [f"call_{n:024d}" for n in range(len(calls))]
    return "".join(text for text, _ in outputs), [(call.name, call.arguments) for call in calls]


def xml(name: str, arguments: str) -> str:
    return (
        f"<tool_call><tool_name>{name}</tool_name><parameters>{arguments}</parameters></tool_call>"
    )


def block(*calls: str) -> str:
    return f"<tool_calls>{''.join(calls)}</tool_calls>"


PARIS = ("get_weather", '{"city": "Paris"}')
NOW = ("clock", "{}")


def test_it_finds_a_call_and_keeps_the_text_before_it() -> None:
    assert run(["Let me look. " + block(xml(*PARIS))]) == ("Let me look. ", [PARIS])


def test_it_gives_the_call_an_id_and_gives_it_out_at_the_close_tag() -> None:
    made = new_filter()
    answer = block(xml(*PARIS))
    assert made.feed(answer[:-1]) == ("", [])
    assert made.feed(answer[-1]) == ("", [ToolCall("call_" + "0" * 24, *PARIS)])
    assert made.finish() == ("", [])


P = '{"city": "Paris"}'


@pytest.mark.parametrize(
    "answer",
    [
        block(xml(*PARIS)),
        block(xml(*PARIS)).replace("tool_call", "TOOL_Call"),
        block(xml("get_weather", f"<![CDATA[{P}]]>")),
        block(xml("get_weather", f"\n```json\n{P}\n```\n")),
        block(xml("get_weather", P.replace('"', "&quot;"))),
        block(xml("get_weather", P.replace('"', "&#34;"))),
        block(xml(" get_weather\n", f"\n  {P}\n")),
        block("\n  " + xml(*PARIS) + "\n"),
        f"<tool_calls><![CDATA[{xml(*PARIS)}]]></tool_calls>",
        f'<tool_calls>{{"name": "get_weather", "arguments": {P}}}</tool_calls>',
        f'<tool_calls>[{{"name": "get_weather", "parameters": {P}}}]</tool_calls>',
        f'<tool_calls>\n```json\n[{{"name": "get_weather", "input": {P}}}]\n```\n</tool_calls>',
        f'<tool_calls>{{"tool_calls": [{{"name": "get_weather", "arguments": {P}}}]}}</tool_calls>',
        xml(*PARIS),
        f'<tool_call>{{"name": "get_weather", "arguments": {P}}}</tool_call>',
        f'<function_call>{{"name": "get_weather", "arguments": {P}}}</function_call>',
        f"<function_call><name>get_weather</name><arguments>{P}</arguments></function_call>",
        f'<function_call name="get_weather">{P}</function_call>',
        f'<function_calls><invoke name="get_weather">{P}</invoke></function_calls>',
        f'<invoke name="get_weather">{P}</invoke>',
        f"<INVOKE id='1' name='get_weather'><parameters>{P}</parameters></INVOKE>",
        f'{{"tool_calls": [{{"name": "get_weather", "arguments": {P}}}]}}',
        f'{{"tool_calls":[{{"id":"x","type":"function","function":'
        f'{{"name":"get_weather","arguments":{json.dumps(P)}}}}}]}}',
        f'```json\n{{ "tool_calls": [{{"name": "get_weather", "arguments": {P}}}]}}\n```',
        f'```\n{{"tool_calls": [{{"name": "get_weather", "arguments": {P}}}]}}\n```',
        f'```JSON \r\n\n{{\n"tool_calls": [{{"name": "get_weather", "arguments": {P}}}]}}```',
        f"<tool_calls>{xml(*PARIS)}",
        f"<tool_calls><tool_call><tool_name>get_weather</tool_name><parameters>{P}",
        block(xml(*PARIS), xml("rm_rf", "{}")),
        block(xml("clock", "[1]"), xml("clock", '"x"'), xml("clock", "5"), xml(*PARIS)),
        block(xml(*PARIS), xml("clock", "{broken")),
    ],
)
def test_it_reads_every_form_however_it_is_cut(answer: str) -> None:
    whole = run([answer])
    assert whole == ("", [PARIS])
    assert run(list(answer)) == whole
    for at in range(len(answer)):
        assert run([answer[:at], answer[at:]]) == whole


@pytest.mark.parametrize(
    "arguments", ["", "{}", " ", "<![CDATA[]]>", "<![CDATA[{}]]>", "\n```json\n{}\n```"]
)
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert run([block(xml("clock", arguments))]) == ("", [NOW])


def test_a_call_without_parameters_element_has_no_arguments() -> None:
    answer = "<tool_calls><tool_call><tool_name>clock</tool_name></tool_call></tool_calls>"
    assert run([answer]) == ("", [NOW])
    assert run(['<invoke name="clock"></invoke>']) == ("", [NOW])


@pytest.mark.parametrize(
    "answer",
    [
        block(xml(*PARIS), xml(*NOW)),
        f"{xml(*PARIS)}\n{xml(*NOW)}",
        f'<invoke name="get_weather">{P}</invoke><invoke name="clock">{{}}</invoke>',
        f'<tool_calls>[{{"name":"get_weather","arguments":{P}}},{{"name":"clock"}}]</tool_calls>',
        f'<tool_calls>{{"name":"get_weather","arguments":{P}}}\n{{"name":"clock"}}</tool_calls>',
        block(xml(*PARIS)) + "\n\n" + block(xml(*NOW)),
        f'{{"tool_calls": [{{"name":"get_weather","arguments":{P}}},{{"name":"clock"}}]}}',
    ],
)
def test_two_calls_stay_two_and_in_order(answer: str) -> None:
    assert run([answer]) == ("", [PARIS, NOW])
    assert run(list(answer)) == ("", [PARIS, NOW])


def test_it_drops_what_follows_a_call() -> None:
    answer = block(xml(*PARIS)) + "\n\nTool result: sunny. " + block(xml(*NOW)) + " Done <b>"
    assert run([answer]) == ("", [PARIS])
    assert run(list(answer)) == ("", [PARIS])


def test_a_block_that_follows_a_call_and_holds_none_is_dropped_too() -> None:
    answer = block(xml(*PARIS)) + block(xml("rm_rf", "{}")) + block(xml(*NOW))
    assert run([answer]) == run(list(answer)) == ("", [PARIS])


def test_markup_inside_arguments_is_not_read_as_markup() -> None:
    source = 'a </parameters></tool_call></tool_calls> "b" ' + xml("clock", "{}") + " \\"
    arguments = json.dumps({"city": source})
    answer = "x" + block(xml("get_weather", arguments), xml(*NOW)) + "y"
    assert run([answer]) == run(list(answer)) == ("x", [("get_weather", arguments), NOW])


def test_broken_arguments_end_the_reading() -> None:
    inner = "{'city': '" + xml("clock", "{}") + "'}"
    answer = block(xml("get_weather", inner))
    assert run([answer]) == (answer, [])


@pytest.mark.parametrize(
    "answer",
    [
        "a < b and {c}",
        "<",
        "{",
        "`",
        "```json\n",
        '```json\n{"tool_ca',
        '```python\nprint({"tool_calls": 1})\n```',
        '{"tool": "calls"}',
        '{"tool_calls": "none"}',
        '{"tool_calls": [',
        '{"tool_calls": [{"name": "rm_rf", "arguments": {}}]}',
        'text {"tool_calls": [{"name": "clock", "arguments": {}}]}',
        "<tool_calls>",
        "<tool_calls></tool_calls>",
        "<tool_calls/> and <tool_callsign> and <invoked name='clock'>",
        "Use `<tool_calls>` for calls, or <invoke name='clock'> as in <function_call> x.",
        block(xml("rm_rf", "{}")),
        block(xml("Clock", "{}")),
        block(xml("clock", "[1]")),
        block(xml("clock", '{"a": NaN}')),
        block(xml("clock", '{"a": ' + "[" * 5000)),
        "<tool_calls>" + "[" * 100_000 + "</tool_calls>",
        "<tool_calls><tool_call>nothing</tool_call></tool_calls> and more",
        "<tool_calls><tool_call>nothing",
        "<ſtrong> <tool_callſ> <invoKe name='x'>",
        " \n <b>bold</b> \n ",
    ],
)
def test_it_lets_everything_else_through_unchanged(answer: str) -> None:
    assert run([answer]) == (answer, [])
    assert run(list(answer)) == (answer, [])


def test_it_holds_back_only_what_may_become_markup() -> None:
    made = new_filter()
    assert made.feed("Hello <tool") == ("Hello ", [])
    assert made.feed("box> x <tool_calls> are") == ("<toolbox> x <tool_calls> are", [])
    assert made.feed(" a { b } c < d") == (" a { b } c < d", [])
    assert made.feed("plain") == ("plain", [])


def test_it_does_not_hold_back_an_answer_that_begins_with_code_or_json() -> None:
    for text in ("```python\n", '{"a', '```json\n{"a', "``x", "\n\n{ ["):
        assert new_filter().feed(text) == (text, [])


def test_it_makes_no_call_when_no_tool_is_declared() -> None:
    answer = block(xml(*PARIS)) + "x"
    assert run(list(answer), tools=()) == (answer, [])


def test_it_takes_line_breaks_in_strings_and_gives_json_that_can_be_sent() -> None:
    answer = block(xml("get_weather", '{"city": "Pa\nris \\ud800 é"}'), xml("clock", '{"é": 1}'))
    text, calls = run([answer])
    assert text == ""
    assert [json.loads(arguments) for _, arguments in calls] == [
        {"city": "Pa\nris \ud800 é"},
        {"é": 1},
    ]
    assert all(arguments.encode() for _, arguments in calls)


def test_hostile_markup_is_read_in_linear_time() -> None:
    for junk in ("<tool_name>" + " " * 200_000, "<invoke " + "name=" * 50_000, "<name>" * 50_000):
        assert run(["<tool_calls><x>" + junk + "</tool_calls>"])[1] == []
    quotes = '<tool_calls>{"' + "</tool_calls>" * 20_000
    assert run([quotes]) == (quotes, [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=3)
SHARDS = st.sampled_from(
    [
        *("<", ">", "{", "}", "[", '"', "\\", "`", "```json\n", " ", "\n", "a", ",", ":"),
        *("<tool_calls>", "</tool_calls>", "<tool_call>", "</tool_call>", "<TOOL_calls"),
        *("<tool_name>", "</tool_name>", "<parameters>", "</parameters>", "clock", "rm_rf"),
        *('<invoke name="clock">', "</invoke>", "<function_call>", "</function_call>"),
        *('{"tool_calls"', '{"name": "clock", "arguments": {}}', xml("clock", "{}"), "{}"),
        *("<![CDATA[", "]]>", "&quot;", "&amp;", block(xml("clock", "{}")), "text"),
    ]
)


@given(st.lists(SHARDS, max_size=25), st.data())
def test_the_cut_changes_nothing(shards: list[str], data: st.DataObject) -> None:
    answer = "".join(shards)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = run([answer])
    assert run(pieces) == whole
    assert run(list(answer)) == whole


@given(st.lists(SHARDS, max_size=25))
def test_it_never_calls_what_was_not_declared_nor_changes_text_without_a_call(
    shards: list[str],
) -> None:
    answer = "".join(shards)
    text, calls = run([answer])
    assert {name for name, _ in calls} <= {"clock", "get_weather"}
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in calls)
    assert answer.startswith(text) if calls else text == answer


@given(st.text(alphabet=st.sampled_from('<{}>`[]"/ \nabctool_s'), max_size=60))
def test_ordinary_text_passes_unchanged(answer: str) -> None:
    assert run(list(answer)) == (answer, [])


@given(
    st.lists(st.tuples(st.sampled_from(["get_weather", "clock"]), OBJECTS), min_size=1, max_size=3)
)
def test_what_is_written_is_read_back(calls: list[tuple[str, dict[str, object]]]) -> None:
    written = write_calls((name, json.dumps(arguments)) for name, arguments in calls)
    found = [(name, json.loads(arguments)) for name, arguments in read_calls(written)]
    assert found == calls
    text, streamed = run(list(written))
    assert (text, [(name, json.loads(arguments)) for name, arguments in streamed]) == ("", calls)


def test_it_describes_each_tool_on_its_own() -> None:
    prompt = render_tools(TOOLS, ToolChoice())
    assert '<tool name="get_weather">\nWeather in a city.\nArguments: {"type": "object"' in prompt
    assert '<tool name="clock">\nArguments: {"type": "object", "properties": {}}\n</tool>' in prompt
    assert prompt.count("</tool>") == 2
    assert "<tool_calls><tool_call><tool_name>NAME</tool_name><parameters>" in prompt


def test_it_says_when_to_call() -> None:
    auto, required, named = (
        render_tools(TOOLS, choice).splitlines()[-1]
        for choice in (ToolChoice(), ToolChoice("required"), ToolChoice("function", "clock"))
    )
    assert "otherwise" in auto
    assert "must call at least one" in required
    assert "must call the function clock" in named


def test_it_says_whether_several_calls_may_be_made() -> None:
    assert "at most one call" in render_tools(TOOLS, ToolChoice(), parallel=False)
    for parallel in (True, None):
        assert "at most one call" not in render_tools(TOOLS, ToolChoice(), parallel)


def test_there_is_no_prompt_without_tools_or_when_none_may_be_called() -> None:
    assert render_tools((), ToolChoice("required")) == ""
    assert render_tools(TOOLS, ToolChoice("none")) == ""


def test_the_example_in_the_prompt_is_itself_readable() -> None:
    example = FunctionTool("NAME")
    text, calls = run([render_tools([example], ToolChoice())], tools=[example])
    assert [name for name, _ in calls] == ["NAME"]
    assert text
