"""`python -m benchmarks` is `proxystore-hpc bench`."""

from __future__ import annotations

import sys

from proxystore_hpc.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", *sys.argv[1:]]))
