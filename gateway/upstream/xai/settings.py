"""What an operator can set about the way to api.x.ai."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.upstream.http import Timeouts


@dataclass(frozen=True, slots=True)
class XaiSettings:
    """One consistent reading of the ``xai`` settings.

    ``timeout`` is the longest silence borne, in seconds; reasoning calls may be silent
    for minutes (upstream-xai 1). ``result_hosts`` are those that links to finished media
    may be on, besides that of ``base_url``.
    """

    base_url: str = "https://api.x.ai"
    timeout: float = 600.0
    connect_timeout: float = 10.0
    result_hosts: tuple[str, ...] = ("imgen.x.ai", "vidgen.x.ai")
    proxy_url: str = field(default="", repr=False)

    def timeouts(self, at_most: float | None = None) -> Timeouts:
        """Time-outs of one exchange; ``at_most`` bounds the wait of a short call."""
        read = self.timeout if at_most is None else min(self.timeout, at_most)
        return Timeouts(connect=self.connect_timeout, read=read)
