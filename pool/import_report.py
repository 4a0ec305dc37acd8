"""What an import did, for people and for programs. Holds numbers and reasons, no secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pool.token_items import Rejected

MAX_LISTED = 10_000


@dataclass(slots=True)
class ImportReport:
    """Counts of entries; the two lists stop at ``MAX_LISTED``, their counts do not.

    ``duplicates`` are numbers of entries whose secret came earlier in the same input.
    ``unit`` says whether numbers count lines or items of a JSON document, from 1.
    """

    unit: Literal["line", "item"] = "line"
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate_count: int = 0
    rejected_count: int = 0
    duplicates: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Every entry seen; blank lines and comments are none."""
        return self.accepted + self.duplicate_count + self.rejected_count

    @property
    def accepted(self) -> int:
        """Distinct credentials that are in the pool after the import."""
        return self.added + self.updated + self.unchanged

    def note_duplicate(self, number: int) -> None:
        self.duplicate_count += 1
        if len(self.duplicates) < MAX_LISTED:
            self.duplicates.append(number)

    def note_rejected(self, rejected: Rejected) -> None:
        self.rejected_count += 1
        if len(self.rejected) < MAX_LISTED:
            self.rejected.append(rejected)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; reasons are in the active language."""
        return {
            "unit": self.unit,
            "added": self.added,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "duplicate_count": self.duplicate_count,
            "rejected_count": self.rejected_count,
            "duplicates": list(self.duplicates),
            "rejected": [
                {self.unit: rejected.number, "reason": str(rejected.reason)}
                for rejected in self.rejected
            ],
        }
