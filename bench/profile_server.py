"""Where the gateway spends its CPU.

python -m bench.profile_server [--server gateway-rest] [--mode stream] [--kind samples]
"""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

from bench.load import run_in_process
from bench.processes import Running, Stage, StartFailed, free_port, wait_for_http
from bench.servers import GATEWAYS, WEB_FLOOR, Scene, Server, serve, set_scene

PATIENCE = 30.0


def start_profiled(scene: Scene, name: str, kind: str, report: Path) -> tuple[Running, Server]:
    """The gateway ``name`` in a process that can be profiled."""
    port = free_port()
    command = ["-m", "bench.profiled", str(report), kind, *serve(port)]
    running = scene.stage.python(name, command, scene.gateway_env(name))
    url = f"http://127.0.0.1:{port}"
    wait_for_http(running, f"{url}/readyz")
    scene.stage.pin(running)
    return running, Server(name, url, running.pid, WEB_FLOOR, key=scene.key)


def profile(scene: Scene, options: argparse.Namespace) -> str:
    """The report on a load run after a warm-up."""
    report = scene.stage.path / "profile.txt"
    running, server = start_profiled(scene, options.server, options.kind, report)
    streaming, prompt = options.mode == "stream", "FRAMES:60"
    run_in_process(server.job(streaming, prompt, requests=1, warmup=700))
    running.process.send_signal(signal.SIGUSR1)
    result = run_in_process(server.job(streaming, prompt, requests=options.requests, warmup=0))
    running.process.send_signal(signal.SIGUSR2)
    if result.failures:
        raise StartFailed(f"wrong answers: {result.failures}")
    head = f"{options.server}, {options.mode}: {options.requests} requests, {result.cpu:.2f} s CPU"
    return f"{head} under the profiler\n\n{_read_when_there(report, running)}"


def _read_when_there(report: Path, running: Running) -> str:
    deadline = time.monotonic() + PATIENCE
    while not report.exists():
        running.check()
        if time.monotonic() > deadline:
            raise StartFailed(f"no report:\n{running.tail()}")
        time.sleep(0.05)
    return report.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=list(GATEWAYS), default="gateway-rest")
    parser.add_argument("--mode", choices=["whole", "stream"], default="stream")
    parser.add_argument("--kind", choices=["calls", "samples"], default="calls")
    parser.add_argument("--requests", type=int, default=1500)
    options = parser.parse_args()
    with Stage() as stage:
        print(profile(set_scene(stage), options))


if __name__ == "__main__":
    main()
