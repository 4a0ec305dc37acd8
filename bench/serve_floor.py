"""Runs one of the floors: ``python -m bench.serve_floor --side web|mgw|xai``."""

from __future__ import annotations

import argparse

from bench.floor import DECODERS, Floor, WebSide, XaiSide, run
from bench.floor_mgw import SocketFloor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, help="base URL")
    parser.add_argument("--side", choices=["web", "mgw", "xai"], default="web")
    parser.add_argument("--decoder", choices=list(DECODERS), default="json")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    side = XaiSide if options.side == "xai" else WebSide
    floor = SocketFloor if options.side == "mgw" else Floor
    decode = DECODERS[options.decoder]
    run(floor(options.upstream, side(options.upstream, decode)), options.port)


if __name__ == "__main__":
    main()
