"""``make bench``: what a request costs here, next to the least it could cost.

python bench/run.py [--quick] [--json FILE] [--url URL --pid PID [--key K] [--model M]]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import slow_streams
from bench.load import run_in_process
from bench.processes import Stage
from bench.servers import NAMES, WEB_FLOOR, Server, set_scene
from bench.slow_streams import Shape
from bench.table import Row, show

FRAMES = 60
MODES = {"whole": False, "stream": True}
NOISY = 1.5
SETTLING = 700
"""Requests before the first round: each credential has been used, pools are warm."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--requests", type=int, default=800, help="measured requests per round, server and mode")
    add("--connections", type=int, default=16)
    add("--servers", default=",".join(NAMES), help="names, with commas (default: %(default)s)")
    add("--streams", type=int, default=500, help="slow streams at the end; 0 for none")
    add("--quick", action="store_true", help="a smoke run; its numbers mean nothing")
    add("--json", type=Path, metavar="FILE", help="also write the results here")
    add("--max-ratio", type=float, help="exit 1 if gateway-rest costs more than that x floor")
    add("--url", help="base URL of another server, for the same table")
    add("--pid", type=int, help="its process; its children count too")
    add("--key", default="", help="its API key")
    add("--model", default="grok-4", help="the model to ask it for")
    options = parser.parse_args()
    if (options.url is None) != (options.pid is None):
        parser.error("--url and --pid belong together")
    if options.quick:
        options.rounds, options.requests, options.streams = 1, 12, min(options.streams, 8)
    return options


def foreign(options: argparse.Namespace) -> Server:
    """The server of --url; merged frames are allowed there, lost or reordered ones are not."""
    return Server(
        "other",
        options.url.rstrip("/"),
        options.pid,
        WEB_FLOOR,
        key=options.key,
        model=options.model,
        exact=False,
    )


def sizes(options: argparse.Namespace, requests: int, warmup: int) -> dict[str, int]:
    return {
        "frames": FRAMES,
        "requests": requests,
        "warmup": warmup,
        "connections": options.connections,
    }


def measure(servers: list[Server], options: argparse.Namespace) -> list[Row]:
    """All rounds; in each the servers take turns, and who is first changes."""
    prompt = f"FRAMES:{FRAMES}"
    rows = [Row(server.name, mode, server.floor) for mode in MODES for server in servers]
    by_key = {(row.server, row.mode): row for row in rows}
    for server in servers if not options.quick else ():
        run_in_process(server.job(True, prompt, **sizes(options, 1, SETTLING)))
    warmup = 4 if options.quick else 60
    for turn in range(options.rounds):
        first = turn % len(servers)
        for mode, streaming in MODES.items():
            for server in servers[first:] + servers[:first]:
                job = server.job(streaming, prompt, **sizes(options, options.requests, warmup))
                by_key[server.name, mode].results.append(run_in_process(job))
        print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)
    return rows


def print_rows(rows: list[Row], options: argparse.Namespace) -> None:
    print(
        f"\nCPU of the server process per request; {FRAMES}-frame answers, "
        f"{options.connections} connections, {options.requests} requests a round, "
        f"median of {options.rounds} (Python {platform.python_version()})\n"
    )
    print(show(rows))
    for row in rows:
        for reason in row.reasons():
            print(f"  {row.server} {row.mode}: {reason}")
    if max(row.spread for row in rows) > NOISY:
        print(f"\nRounds differ by more than {NOISY:g}x: something else ran here. Run it again.")
    if options.quick:
        print("\nA smoke run: these numbers mean nothing.")


def save(path: Path, rows: list[Row], slow: dict[str, Any], options: argparse.Namespace) -> None:
    path.write_text(
        json.dumps(
            {
                "python": platform.python_version(),
                "machine": platform.machine(),
                "rounds": options.rounds,
                "requests": options.requests,
                "connections": options.connections,
                "frames": FRAMES,
                "rows": [row.as_dict(rows) for row in rows],
                "slow_streams": slow,
            },
            indent=2,
        )
        + "\n"
    )


def slow_part(servers: list[Server], options: argparse.Namespace) -> dict[str, Any]:
    chosen = [server for server in servers if server.name in {WEB_FLOOR, "gateway-rest"}]
    if not chosen or not options.streams:
        return {}
    shape = Shape(options.streams, 8, 5, 0.0) if options.quick else Shape(options.streams)
    return slow_streams.as_dicts(slow_streams.compare(chosen, shape))


def verdict(rows: list[Row], slow: dict[str, Any], most: float | None) -> int:
    """0, or 1 for a wrong answer or a ratio above ``most``."""
    bad = sum(row.failures for row in rows) + sum(len(one["failures"]) for one in slow.values())
    if bad:
        print("\nFAILED: there were wrong answers.")
        return 1
    ratios = [row.ratio(rows) or 0.0 for row in rows if row.server == "gateway-rest"]
    if most is not None and max(ratios, default=0.0) > most:
        print(f"\nFAILED: gateway-rest costs more than {most:g} x floor.")
        return 1
    return 0


def main() -> int:
    options = arguments()
    began = time.monotonic()
    with Stage() as stage:
        servers = set_scene(stage).start(options.servers.split(","))
        if options.url:
            servers.append(foreign(options))
        rows = measure(servers, options)
        print_rows(rows, options)
        slow = slow_part(servers, options)
    if options.json:
        save(options.json, rows, slow, options)
    print(f"\n{time.monotonic() - began:.0f} s")
    return verdict(rows, slow, options.max_ratio)


if __name__ == "__main__":
    sys.exit(main())
