"""What a scrape is answered: one registry's numbers, or those of all workers together."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.telemetry import slots
from gateway.telemetry.slots import Slot

Workers = Callable[[], Mapping[int, int]]


class Exposition:
    """``own`` holds this worker's metrics; with a ``slot`` those of the others are added."""

    def __init__(self, own: CollectorRegistry, slot: Slot | None, version: str) -> None:
        self._scraped = CollectorRegistry()
        workers = partial(slots.running, slot.directory) if slot else _this_worker
        self._scraped.register(own if slot is None else _SharedFiles(slot.directory))
        self._scraped.register(_Server(version, workers))
        self._scraped.register(_Processes(workers))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for an Accept header: Prometheus text, or OpenMetrics.

        Reads files where workers share them, so it has no place on an event loop.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._scraped), content_type


def _this_worker() -> dict[int, int]:
    return {0: os.getpid()}


class _SharedFiles(Collector):
    """The numbers of all workers, without the gauges of dead ones."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        alive = slots.running(self._directory)
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _counts(path, alive)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _counts(path: Path, alive: Mapping[int, int]) -> bool:
    if path.name.startswith("gauge_live") and int(path.stem.rpartition("_")[2]) not in alive:
        return False
    try:
        # A file is empty for the moment between its making and its first number.
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


class _Server(Collector):
    """What is known without counting."""

    def __init__(self, version: str, workers: Workers) -> None:
        self._build = {"version": version, "python": platform.python_version()}
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("grok2api_build", "What runs here.", value=self._build)
        yield GaugeMetricFamily("grok2api_workers", "Workers that run.", value=len(self._workers()))


class _Processes(Collector):
    """prometheus-client's process metrics, for each worker that runs."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for number, pid in self._workers().items():
            # The registry is None: one process after another is asked here, not registered.
            for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                family = Metric(found.name, found.documentation, found.type)
                family = families.setdefault(found.name, family)
                for sample in found.samples:
                    family.add_sample(sample.name, {"worker": str(number)}, sample.value)
        return families.values()
