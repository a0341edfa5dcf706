"""`python -m proxystore_hpc` is the command `proxystore-hpc`."""

from __future__ import annotations

from proxystore_hpc.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
