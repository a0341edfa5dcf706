"""Which doors can be tested here."""

from __future__ import annotations

import functools
from typing import Any

import pytest

REMOTE_DOORS = ("shm", "socket", "ucx")


def options_for(door: str) -> dict[str, Any]:
    """Options of a store that may use this door and no other; skips where it cannot be had."""
    require_door(door)
    return {"doors": (door,)}


def require_door(door: str) -> None:
    """Skips the test where this door cannot be had, saying why."""
    reason = why_without(door)
    if reason is not None:
        pytest.skip(f"door {door}: {reason}")


@functools.cache
def why_without(door: str) -> str | None:
    from proxystore_hpc import Store
    from proxystore_hpc.exceptions import DoorUnavailableError

    try:
        Store(f"probe-{door}", doors=(door,)).close()
    except DoorUnavailableError as error:
        return str(error)
    return None
