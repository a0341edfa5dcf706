"""A suite of two sides in a job of two ranks: rank 0 runs pytest, rank 1 is the peer of its tests.

Arguments: those of pytest. Rank 0 prints where the ranks are, and what pytest prints.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

from support import ranks  # noqa: E402


def main() -> int:
    from mpi4py import MPI

    hosts = ranks.wire().allgather(socket.gethostname())
    if MPI.COMM_WORLD.rank == 1:
        ranks.serve()
        return 0
    import pytest

    print("ranks on", ", ".join(hosts), flush=True)
    try:
        return int(pytest.main([*sys.argv[1:], "--over=mpi"]))
    finally:
        ranks.dismiss()


if __name__ == "__main__":
    sys.exit(main())
