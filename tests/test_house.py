"""The rules of the house, as docs/architecture.md gives them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("grok2api", "pool", "gateway", "register")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def modules() -> list[Path]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return [file for file in files if "migrations" not in file.parts]


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield file, node


def test_functions_are_short() -> None:
    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for _, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )

    assert len(lengths) > 500
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 35
    assert lengths[-1] <= 60


def test_modules_have_a_size_and_a_name_of_their_own() -> None:
    for file in modules():
        assert file.read_text(encoding="utf-8").count("\n") <= 500, file
        assert file.stem not in FORBIDDEN_NAMES, file


def test_hardly_anything_is_caught_blindly() -> None:
    blind = [
        file
        for file, node in nodes()
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") == "Exception")
    ]

    assert len(blind) <= 2, blind


def test_imports_follow_the_contracts() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-2000:]
