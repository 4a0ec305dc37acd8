"""The benchmark harness: it notices wrong answers, counts right, and still runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import usage
from bench.answers import checker
from bench.load import Result
from bench.table import Row, show

ROOT = Path(__file__).resolve().parent.parent


def stream_of(words: list[str], end: str = "data: [DONE]\n\n") -> bytes:
    chunks: list[dict[str, object]] = [
        {"delta": {"content": f"{word} "}, "finish_reason": None} for word in words
    ]
    chunks.append({"delta": {}, "finish_reason": "stop"})
    events = (f"data: {json.dumps({'choices': [chunk]})}\n\n" for chunk in chunks)
    return ("".join(events) + end).encode()


def test_it_accepts_a_whole_stream_in_order() -> None:
    assert checker("openai", True, 3, True)(stream_of(["w0", "w1", "w2"])) == ""


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (stream_of(["w0", "w2"]), "2 content frames instead of 3"),
        (stream_of(["w0", "w2", "w1"]), "frames out of order"),
        (stream_of(["w0", "w1", "w1"]), "wrong content"),
        (stream_of(["w0", "w1", "w2"], end=""), "no [DONE]"),
        (stream_of(["w0", "w1", "w2"]) + stream_of([]), "after [DONE]"),
        (b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n', "an error event"),
        (b"data: {oops\n\n", "no chunk"),
        (stream_of(["w0", "w1", "w2"])[:-1], "after the last event"),
    ],
)
def test_it_refuses_a_stream_that_is_not_right(body: bytes, complaint: str) -> None:
    assert complaint in checker("openai", True, 3, True)(body)


def test_it_lets_other_servers_merge_frames_but_not_reorder_them() -> None:
    check = checker("openai", True, 3, False)
    assert check(stream_of(["w0 w1", "w2"])) == ""
    assert check(stream_of(["w1 w0", "w2"])) == "frames out of order"


def test_it_refuses_a_whole_answer_that_was_cut() -> None:
    def body(content: str, reason: str) -> bytes:
        choice = {"message": {"content": content}, "finish_reason": reason}
        return json.dumps({"choices": [choice]}).encode()

    check = checker("openai", False, 2, True)
    assert check(body("w0 w1 ", "stop")) == ""
    assert "length" in check(body("w0 w1 ", "length"))
    assert "wrong content" in check(body("w0 ", "stop"))


def test_it_reads_the_same_cpu_time_from_the_clock_as_from_proc() -> None:
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert usage.cpu_seconds([os.getpid()]) == pytest.approx(
        usage.stat_seconds(os.getpid()), abs=0.1
    )


def test_it_counts_children_as_part_of_a_server() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        assert child.pid in usage.family(os.getpid())
        child.communicate(b"\n")
    with pytest.raises(usage.Gone):
        usage.cpu_seconds([child.pid])


def test_it_compares_rounds_with_the_floor_of_the_same_round() -> None:
    def row(name: str, *cpu_ms: float) -> Row:
        results = [Result(100, 1.0, ms / 10, 0.0, 0.0) for ms in cpu_ms]
        return Row(name, "whole", "floor", results)

    floor, mine = row("floor", 1.0, 2.0, 4.0), row("mine", 2.0, 4.0, 12.0)
    assert mine.ratio([floor, mine]) == pytest.approx(2.0)
    assert mine.ratio([mine]) is None
    assert "2.00" in show([floor, mine]).splitlines()[-1]


def test_it_measures_floor_and_gateway_side_by_side(tmp_path: Path) -> None:
    report = tmp_path / "results.json"
    command = [sys.executable, "bench/run.py", "--quick", "--json", str(report), "--streams", "4"]
    command += ["--servers", "floor,floor-xai,gateway-rest,gateway-xai"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())
    rows = {(row["server"], row["mode"]): row for row in results["rows"]}
    servers = ("floor", "floor-xai", "gateway-rest", "gateway-xai")
    assert set(rows) == {(server, mode) for server in servers for mode in ("whole", "stream")}
    assert all(row["failures"] == 0 and row["cpu_ms_median"] > 0 for row in rows.values())
    assert results["slow_streams"]["gateway-rest"]["frames"] == 4 * 8
