"""``manage.py`` under a profiler that two signals switch on and off.

``python -m bench.profiled REPORT KIND manage-arguments...``: SIGUSR1 starts, SIGUSR2 stops and
writes the report. KIND is ``calls`` (cProfile: exact counts, but small functions look dearer
than they are) or ``samples`` (stacks on a CPU timer: true proportions, no counts).
"""

from __future__ import annotations

import cProfile
import gc
import io
import os
import pstats
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Protocol

TOP = 40
SAMPLE_S = 0.001


class Profiler(Protocol):
    def start(self) -> None: ...

    def report(self) -> str: ...


class Calls:
    """cProfile."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    def start(self) -> None:
        self._profile.enable()

    def report(self) -> str:
        self._profile.disable()
        text = io.StringIO()
        pstats.Stats(self._profile, stream=text).sort_stats("tottime").print_stats(TOP)
        return text.getvalue()


class Samples:
    """Where the CPU was, every millisecond of CPU time (the kernel's tick permitting)."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._with_callees: Counter[str] = Counter()
        self._total = 0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def report(self) -> str:
        signal.setitimer(signal.ITIMER_PROF, 0)
        own = self._lines("own", self._own)
        return f"{self._total} samples\n\n{own}\n\n{self._lines('total', self._with_callees)}\n"

    def _sample(self, number: int, frame: FrameType | None) -> None:
        self._total += 1
        if frame is not None:
            self._own[_place(frame)] += 1
        places = set()
        while frame is not None:
            places.add(_place(frame))
            frame = frame.f_back
        self._with_callees.update(places)

    def _lines(self, title: str, counts: Counter[str]) -> str:
        total = self._total or 1
        shown = [f"{100 * n / total:6.1f} %  {place}" for place, n in counts.most_common(TOP)]
        return "\n".join([f"{title} CPU", *shown])


def _place(frame: FrameType) -> str:
    code = frame.f_code
    file = "/".join(Path(code.co_filename).parts[-3:])
    return f"{file}:{code.co_firstlineno} {code.co_qualname}"


class Collections:
    """What garbage collection costs meanwhile, and its longest pause."""

    def __init__(self) -> None:
        self._began = 0.0
        self._pauses: dict[int, list[float]] = {0: [], 1: [], 2: []}

    def start(self) -> None:
        gc.callbacks.append(self._note)

    def report(self) -> str:
        gc.callbacks.remove(self._note)
        return "".join(
            f"gc generation {generation}: {len(pauses)} runs, {sum(pauses) * 1000:.0f} ms, "
            f"longest {max(pauses, default=0.0) * 1000:.1f} ms\n"
            for generation, pauses in self._pauses.items()
        )

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._pauses[info["generation"]].append(time.perf_counter() - self._began)


def main() -> None:
    report, kind, *rest = sys.argv[1:]
    profiler: Profiler = Calls() if kind == "calls" else Samples()
    collections = Collections()

    def begin(number: int, frame: FrameType | None) -> None:
        collections.start()
        profiler.start()

    def end(number: int, frame: FrameType | None) -> None:
        text = profiler.report() + "\n" + collections.report()
        draft = Path(f"{report}.draft")
        draft.write_text(text)
        draft.rename(report)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *rest])


if __name__ == "__main__":
    main()
