"""Many slow streams at once: nothing lost, and what each of them costs.

python -m bench.slow_streams [--streams 500 --frames 64 --interval-ms 50]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import load
from bench.processes import Stage
from bench.servers import Server, set_scene
from bench.slow_load import LATE, SlowJob, SlowResult, run_in_process
from bench.table import render

HEAD = (
    "server", "streams", "KB/stream", "first p50 ms", "first p99 ms", "frames", "late",
    "worst gap ms", "seconds", "CPU s", "bad",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """How many streams, of how many frames, how many milliseconds apart; ``ramp`` seconds."""

    streams: int = 500
    frames: int = 64
    interval_ms: int = 50
    ramp: float = 1.0


def measure(server: Server, shape: Shape) -> SlowResult:
    """Run the streams against one server, after a few requests that warm it up."""
    load.run_in_process(server.job(True, "FRAMES:60", requests=1, warmup=100))
    asked = server.job(True, f"FRAMES:{shape.frames}x{shape.interval_ms}")
    return run_in_process(
        SlowJob(
            url=asked.url,
            path=asked.path,
            headers=asked.headers,
            body=asked.body,
            pids=asked.pids,
            streams=shape.streams,
            frames=shape.frames,
            interval=shape.interval_ms / 1000,
            ramp=shape.ramp,
        )
    )


def cells(name: str, result: SlowResult) -> tuple[str, ...]:
    return (
        name,
        str(result.streams),
        f"{result.kb_per_stream:.1f}",
        f"{result.first_p50 * 1000:.0f}",
        f"{result.first_p99 * 1000:.0f}",
        str(result.frames),
        str(result.late),
        f"{result.worst_gap * 1000:.0f}",
        f"{result.duration:.2f}",
        f"{result.cpu:.2f}",
        str(sum(result.failures.values())),
    )


def compare(servers: list[Server], shape: Shape) -> dict[str, SlowResult]:
    """Measure one after the other and print the table."""
    results = {server.name: measure(server, shape) for server in servers}
    ideal = (shape.frames - 1) * shape.interval_ms / 1000 + shape.ramp
    print(
        f"\nSlow streams: {shape.streams} at once, {shape.frames} frames, "
        f"{shape.interval_ms} ms apart, begun over {shape.ramp:g} s (ideal {ideal:.2f} s); "
        f"late: more than {LATE * 1000:.0f} ms behind its interval\n"
    )
    print(render(HEAD, [cells(name, result) for name, result in results.items()]))
    for name, result in results.items():
        for reason, count in result.failures.items():
            print(f"  {name}: {count} x {reason}")
    return results


def as_dicts(results: dict[str, SlowResult]) -> dict[str, Any]:
    return {
        name: asdict(result) | {"kb_per_stream": result.kb_per_stream}
        for name, result in results.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--interval-ms", type=int, default=50)
    parser.add_argument("--ramp", type=float, default=1.0, help="seconds over which they begin")
    parser.add_argument("--servers", default="floor,gateway-rest", help="names, with commas")
    options = parser.parse_args()
    shape = Shape(options.streams, options.frames, options.interval_ms, options.ramp)
    with Stage() as stage:
        servers = set_scene(stage).start(options.servers.split(","))
        results = compare(servers, shape)
    return 1 if any(result.failures for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
