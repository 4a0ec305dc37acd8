"""``make demo``'s command: what it prints works as pasted, and Ctrl-C ends all of it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.serving import ROOT, environment, free_port, wait_for


def start(data_dir: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "demo"],
            cwd=ROOT,
            env=environment(data_dir, {"SERVER_PORT": str(port)}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert wait_for(lambda: is_open(port), 30), log.read_text(encoding="utf-8")
    return process


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_printed_curl_works_and_the_data_stays(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "demo.log"
    process = start(tmp_path / "data", port, log)
    try:
        guide = log.read_text(encoding="utf-8")
        key = re.search(r"Key +(sk-\S+)", guide)
        curl = re.search(r"^  (curl .*?)\n\n", guide, re.S | re.M)
        assert key is not None
        assert curl is not None

        answer = subprocess.run(
            ["/bin/sh", "-c", curl.group(1)], capture_output=True, text=True, timeout=30, check=True
        )

        assert "You said" in answer.stdout
        assert answer.stdout.rstrip().endswith("data: [DONE]")
        assert can_log_in(port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(15)
    assert not is_open(port)
    assert "Traceback" not in log.read_text(encoding="utf-8")

    begun = time.monotonic()
    again = start(tmp_path / "data", port, log)
    try:
        assert time.monotonic() - begun < 20
        assert key.group(1) in log.read_text(encoding="utf-8")
    finally:
        again.send_signal(signal.SIGINT)
        again.wait(15)


def can_log_in(port: int) -> bool:
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=base, follow_redirects=True) as browser:
        page = browser.get("/admin/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None
        form = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": token.group(1)}
        home = browser.post("/admin/login/?next=/admin/", data=form, headers={"Referer": base})
        listing = browser.get("/admin/pool/credential/")
    return "pool/credential" in home.text and "ok-demo" not in listing.text
