"""The manual says what the schema says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.conf import reference
from gateway.conf.keys import KEYS

MANUAL = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_manual_is_up_to_date() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    assert reference.put_into(text) == text, "run gateway.conf.reference.write on the manual"


def test_every_key_and_variable_is_in_the_tables() -> None:
    tables = reference.render_markdown()
    missing = [k.name for k in KEYS.values() if f"| `{k.name}` | `" not in tables]
    assert missing == []
    assert [k.name for k in KEYS.values() if f"| `{k.env_name}` |" not in tables] == []


def test_every_row_has_five_cells() -> None:
    rows = [row for row in reference.render_markdown().split("\n") if row.startswith("| `")]
    assert len(rows) == len(KEYS)
    assert {row.replace("\\|", "").count("|") for row in rows} == {6}


def test_writing_it_again_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "manual.md"
    shutil.copy(MANUAL, copy)
    reference.write(copy)
    assert copy.read_bytes() == MANUAL.read_bytes()


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        reference.put_into("# Configuration\n")
