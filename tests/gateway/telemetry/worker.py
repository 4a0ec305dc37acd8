"""A worker without a server: does what the lines of its standard input say.

``began``, ``observe``, ``open``: one of those events; ``lead`` makes it the leader,
``credentials N`` tells N active ones; ``render`` answers with a scrape as a JSON string;
``slot`` with the number of its slot.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[3]


class Worker:
    """The other end, in the test. The process is killed at the end at the latest."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.telemetry.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.slot: int | None = self.tell("slot")

    def tell(self, *commands: str) -> Any:
        """Have the commands done, and give the answer of the last one."""
        assert self._process.stdin and self._process.stdout
        for command in commands:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        return answer

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()


def main() -> None:
    from gateway.telemetry import slots
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.readings import Readings
    from tests.gateway.telemetry.samples import exchange

    slot = slots.join()
    state = SimpleNamespace(credentials=1, leads=False)
    readings = Readings(
        credentials=lambda: {"sso": {"active": state.credentials}},
        queues={"ledger": lambda: 3},
        leader=lambda: state.leads,
    )
    metrics = Metrics("1", readings, slot)
    metrics.sampler.sample()
    for line in sys.stdin:
        answer: object = None
        match line.split():
            case ["began"]:
                metrics.began()
            case ["observe"]:
                metrics.observe(exchange())
            case ["open"]:
                metrics.stream_opened()
            case ["lead"]:
                state.leads = True
                metrics.sampler.sample()
            case ["credentials", number]:
                state.credentials = int(number)
                metrics.sampler.sample()
            case ["render"]:
                answer = metrics.render()[0].decode()
            case ["slot"]:
                answer = slot and slot.number
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
