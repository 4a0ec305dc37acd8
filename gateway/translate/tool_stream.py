"""Turning prompt-form tool calls in a web answer into tool call events."""

from __future__ import annotations

from collections.abc import Callable

from gateway.translate.tool_prompt import ToolCallFilter
from gateway.upstream.events import Event, Finished, Text
from gateway.upstream.requests import ChatRequest


class ToolStream:
    """Rewrites batches: text passes through the filter, calls come out as events."""

    def __init__(self, request: ChatRequest, new_id: Callable[[], str]) -> None:
        self._filter = ToolCallFilter(request.tools, new_id)

    def rewrite(self, batch: list[Event]) -> list[Event]:
        events: list[Event] = []
        for event in batch:
            if isinstance(event, Text):
                text, calls = self._filter.feed(event.text)
                events += [Text(text), *calls] if text else calls
            elif isinstance(event, Finished):
                text, calls = self._filter.finish()
                events += [Text(text), *calls] if text else calls
                events.append(event)
            else:
                events.append(event)
        return events
