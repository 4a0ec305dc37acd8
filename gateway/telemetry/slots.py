"""How the workers of one server share their numbers: a directory with a slot for each.

prometheus-client's multiprocess mode keeps a worker's numbers in files named after it, by
default after its process id. Here the name is a slot: the lowest number that no running
worker holds. A worker that takes a dead one's place goes on with its counters, so neither
the files nor the series grow with every restart, and a slot's lock, which ends with its
process however that dies, says which gauges still mean something.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that leads workers to their directory; prometheus-client reads it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """This process's place among those that share ``directory``, kept until the process ends."""

    directory: Path
    number: int
    lock: int


def prepare_directory(path: Path) -> None:
    """Make ``path`` an empty directory for the workers this process starts from now on.

    It belongs to one server: a second one on the same path would empty it under the first.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in (*path.glob("*.db"), *path.glob("*.lock")):
        left.unlink()
    os.environ[VARIABLE] = str(path)


def join(env: Mapping[str, str] = os.environ) -> Slot | None:
    """A slot in the directory the environment names; None where workers share nothing."""
    path = env.get(VARIABLE, "")
    if not path:
        return None
    if not Path(path).is_dir():
        logger.warning("%s=%s is no directory: each worker counts for itself", VARIABLE, path)
        return None
    return claim(Path(path))


def claim(directory: Path) -> Slot:
    """Take the lowest free slot, without the gauges of whoever died in it."""
    with _turn(directory, fcntl.LOCK_EX):
        for number in count():
            lock = os.open(_lock_file(directory, number), os.O_RDWR | os.O_CREAT, 0o600)
            if _try_lock(lock, fcntl.LOCK_EX):
                break
            os.close(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        for stale in directory.glob(f"gauge_live*_{number}.db"):
            stale.unlink()
    return Slot(directory, number, lock)


def running(directory: Path) -> dict[int, int]:
    """The slots whose worker lives, each with its process id."""
    found = {}
    with _turn(directory, fcntl.LOCK_SH):
        for path in directory.glob("slot-*.lock"):
            probe = os.open(path, os.O_RDONLY)
            try:
                if not _try_lock(probe, fcntl.LOCK_SH):
                    found[int(path.stem.partition("-")[2])] = int(os.pread(probe, 20, 0))
            finally:
                os.close(probe)
    return dict(sorted(found.items()))


def _lock_file(directory: Path, number: int) -> Path:
    return directory / f"slot-{number}.lock"


@contextmanager
def _turn(directory: Path, mode: int) -> Iterator[None]:
    """Nobody looks who lives while another claims: a look takes each lock for a moment."""
    turn = os.open(directory / "claims.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(turn, mode)
        yield
    finally:
        os.close(turn)


def _try_lock(file: int, mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
