"""The memory in which limited keys are counted: one fixed record per key.

It is this process's own, or a file that the workers of one host map. In a file every look
at a record happens under a lock on one byte of it, which the kernel gives back when its
holder dies. Each worker also holds the lock of its slot's byte for as long as it lives, so
a slot whose lock can be had is a dead worker's. All numbers are 64 bits wide.

A record, in words:
    0        key id, 0 in a free record
    1        requests now running
    2, 3     newest second of the minute window, requests in the window
    4..64    requests per second, by second modulo 61
    65..84   two days, by day modulo 2: day, row, four used, four reserved
    85..     per slot: its running requests, its reserved of the two days
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from pool.limits.charges import BUCKETS

CAPACITY = 16_384
"""Limited keys that fit; records are not given back before the next start."""
MAX_SLOTS = 256
RUNNING = 1
SECOND, IN_WINDOW, RING = 2, 3, 4
SECONDS = 61
"""Any 60 seconds touch at most so many whole seconds."""
KINDS = len(BUCKETS)
DAYS = RING + SECONDS
DAY, ROW, USED, RESERVED = 0, 1, 2, 2 + KINDS
DAY_WORDS = RESERVED + KINDS
SLOTS = DAYS + 2 * DAY_WORDS
SLOT_WORDS = 1 + 2 * KINDS

_WORD = 8
_HEADER = 512
_MAGIC = 0x6732_6C69_6D69_7431
# Lock bytes: one per slot, one for taking a free record, one per record.
_TAKING = MAX_SLOTS
_RECORDS = MAX_SLOTS + 1


class BadTable(Exception):
    """The file is none of ours, or every slot of it belongs to a living worker."""


def create(path: Path, *, workers: int, capacity: int = CAPACITY) -> None:
    """Make the file that ``workers`` processes share; it is sparse until used.

    There are twice as many slots as workers, since old and new ones may overlap.
    """
    slots = min(MAX_SLOTS, 2 * workers)
    # Workers of an earlier start may not be gone yet: they keep theirs, which has no name now.
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(_size(slots, capacity))
        for word in (_MAGIC, slots, capacity):
            file.write(word.to_bytes(_WORD, "little"))


def _size(slots: int, capacity: int) -> int:
    return _WORD * (_HEADER + capacity * (SLOTS + slots * SLOT_WORDS))


class KeyTable:
    """``words`` are the numbers, ``slot`` is the place of this process's own slot in a record.

    A record is known by its place, the index of its first word. Not for several threads.
    A process opens a file once: closing it anywhere in the process ends all its locks.
    """

    def __init__(self, memory: mmap.mmap, slots: int, capacity: int, file: int = -1) -> None:
        self.words = memoryview(memory).cast("q")
        self.slots = slots
        self.slot = SLOTS
        self.turned_away = 0
        self._memory = memory
        self._capacity = capacity
        self._size = SLOTS + slots * SLOT_WORDS
        self._file = file
        self._places: dict[int, int] = {}

    @classmethod
    def anonymous(cls, capacity: int = CAPACITY) -> KeyTable:
        """Memory of this process's own, with one slot and without locks."""
        return cls(mmap.mmap(-1, _size(1, capacity)), 1, capacity)

    @classmethod
    def open(cls, path: Path) -> KeyTable:
        """Map a file that ``create`` made and take a slot; raises BadTable or OSError."""
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            header = os.pread(file, 3 * _WORD, 0)
            magic, slots, capacity = (
                int.from_bytes(header[at : at + _WORD], "little") for at in (0, _WORD, 2 * _WORD)
            )
            if magic != _MAGIC or os.fstat(file).st_size != _size(slots, capacity):
                raise BadTable(f"{path} is not a table of key limits")
            table = cls(mmap.mmap(file, _size(slots, capacity)), slots, capacity, file)
            table._take_slot()
        except BaseException:
            os.close(file)
            raise
        return table

    def close(self) -> None:
        """Let go of memory, file, slot and locks."""
        self.words.release()
        self._memory.close()
        if self._file >= 0:
            os.close(self._file)

    def place_of(self, key_id: int) -> int:
        """The record of a key, made if need be; -1 when the table is full, which is counted."""
        place = self._places.get(key_id)
        if place is None:
            place = self._look(key_id)
            if self.words[place] != key_id:
                place = self._take_record(key_id)
            # Also that there is none stays true: a full table stays full.
            self._places[key_id] = place
        if place < 0:
            self.turned_away += 1
        return place

    def _take_record(self, key_id: int) -> int:
        self._lock(_TAKING)
        try:
            place = self._look(key_id)
            if self.words[place] == 0:
                self.words[place] = key_id
            return place if self.words[place] == key_id else -1
        finally:
            self._unlock(_TAKING)

    def _look(self, key_id: int) -> int:
        """The key's record, else the free one it would get, else any that is another's."""
        words, size, capacity = self.words, self._size, self._capacity
        number = key_id % capacity
        for _ in range(capacity):
            place = _HEADER + number * size
            if words[place] in (key_id, 0):
                return place
            number = (number + 1) % capacity
        return _HEADER + number * size

    def enter(self, place: int) -> None:
        """Have the record to oneself until ``leave``; hold at most one record at a time."""
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _RECORDS + place // self._size)

    def leave(self, place: int) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _RECORDS + place // self._size)

    def recount(self, place: int) -> None:
        """Give back what dead workers hold of a record, and add up anew what is held.

        Also sets right what a worker left half written when it was killed.
        """
        words = self.words
        totals = [0] * SLOT_WORDS
        for number in range(self.slots):
            at = place + SLOTS + number * SLOT_WORDS
            held = words[at : at + SLOT_WORDS].tolist()
            if not any(held):
                continue
            if self._is_dead(number):
                self._clear(at)
            else:
                totals = [total + part for total, part in zip(totals, held, strict=True)]
        self._set_totals(place, totals)

    def _set_totals(self, place: int, totals: list[int]) -> None:
        words = self.words
        words[place + RUNNING] = totals[0]
        for parity in (0, 1):
            at = place + DAYS + parity * DAY_WORDS + RESERVED
            for kind in range(KINDS):
                words[at + kind] = totals[1 + parity * KINDS + kind]

    def _clear(self, at: int) -> None:
        for word in range(at, at + SLOT_WORDS):
            self.words[word] = 0

    def _is_dead(self, number: int) -> bool:
        if SLOTS + number * SLOT_WORDS == self.slot:
            return False
        if not self._try_lock(number):
            return False
        self._unlock(number)
        return True

    def _take_slot(self) -> None:
        for number in range(self.slots):
            if self._try_lock(number):
                self.slot = SLOTS + number * SLOT_WORDS
                self._empty_slot()
                return
        raise BadTable(f"all {self.slots} slots belong to living workers")

    def _empty_slot(self) -> None:
        """What the slot's former worker still holds is nobody's."""
        for number in range(self._capacity):
            place = _HEADER + number * self._size
            at = place + self.slot
            if self.words[place] and any(self.words[at : at + SLOT_WORDS]):
                self.enter(place)
                try:
                    self._clear(at)
                    self.recount(place)
                finally:
                    self.leave(place)

    def _lock(self, byte: int) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, byte)

    def _unlock(self, byte: int) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True
