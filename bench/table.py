"""From measurements to the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.load import Result

HEAD = ("server", "mode", "CPU ms/req", "min..max", "x floor", "req/s", "p50 ms", "p99 ms", "bad")


@dataclass(slots=True)
class Row:
    """The rounds of one server in one mode. ``floor`` names the server compared with."""

    server: str
    mode: str
    floor: str
    results: list[Result] = field(default_factory=list)

    @property
    def cpu_ms(self) -> list[float]:
        """CPU per request, one number a round."""
        return [result.cpu * 1000 / result.requests for result in self.results]

    @property
    def spread(self) -> float:
        """The dearest round over the cheapest."""
        return max(self.cpu_ms) / (min(self.cpu_ms) or 1.0)

    @property
    def failures(self) -> int:
        return sum(sum(result.failures.values()) for result in self.results)

    def reasons(self) -> list[str]:
        return sorted({reason for result in self.results for reason in result.failures})

    def ratio(self, rows: list[Row]) -> float | None:
        """The median of the rounds' ratios to the floor; None where it was not measured."""
        for row in rows:
            if (row.server, row.mode) == (self.floor, self.mode) and row.results:
                pairs = zip(self.cpu_ms, row.cpu_ms, strict=True)
                return median(mine / floor for mine, floor in pairs if floor)
        return None

    def as_dict(self, rows: list[Row]) -> dict[str, Any]:
        return {
            "server": self.server,
            "mode": self.mode,
            "floor": self.floor,
            "cpu_ms": self.cpu_ms,
            "cpu_ms_median": median(self.cpu_ms),
            "ratio_to_floor": self.ratio(rows),
            "requests_per_second": self._median_of("rate"),
            "p50_ms": self._median_of("p50"),
            "p99_ms": self._median_of("p99"),
            "requests": sum(result.requests for result in self.results),
            "failures": self.failures,
            "reasons": self.reasons(),
        }

    def _median_of(self, what: str) -> float:
        if what == "rate":
            return median(result.requests / result.wall for result in self.results)
        return 1000 * median(float(getattr(result, what)) for result in self.results)

    def cells(self, rows: list[Row]) -> tuple[str, ...]:
        ratio = self.ratio(rows)
        return (
            self.server,
            self.mode,
            f"{median(self.cpu_ms):.3f}",
            f"{min(self.cpu_ms):.3f}..{max(self.cpu_ms):.3f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{self._median_of('rate'):.0f}",
            f"{self._median_of('p50'):.1f}",
            f"{self._median_of('p99'):.1f}",
            str(self.failures),
        )


def render(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A plain text table; the first two columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, lines)])


def show(rows: list[Row]) -> str:
    return render(HEAD, [row.cells(rows) for row in rows])
