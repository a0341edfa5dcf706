"""A container's memory limit is told as an error: the kernel never has to end the process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from proxystore_hpc.exceptions import StoreFullError

pytestmark = pytest.mark.faults

LIMIT = 300 << 20


def memory_cgroup_of_ours() -> tuple[Path, str]:
    """The cgroup that accounts for this process's memory, and the name of its limit."""
    places = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        places.update(dict.fromkeys(controllers.split(","), path))
    if "memory" in places:
        return Path("/sys/fs/cgroup/memory" + places["memory"]), "memory.limit_in_bytes"
    return Path("/sys/fs/cgroup" + places.get("", "/")), "memory.max"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    parent, limit = memory_cgroup_of_ours()
    group = parent / f"proxystore-hpc-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"a cgroup cannot be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(LIMIT))
        except OSError as error:
            pytest.skip(f"a cgroup cannot be limited here: {error}")
        yield group
    finally:
        for _ in range(100):  # until the kernel has buried those who were in it
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def fill(here):
    here.keys = []
    while True:
        here.keys.append(here.store.put(np.full(1 << 20, len(here.keys))))


def check(here):
    arrays = [here.store.get(key) for key in here.keys]
    return len(arrays), all((a == i).all() for i, a in enumerate(arrays))


def test_a_capacity_beyond_the_limit(cgroup, make_peer):
    join = ("bash", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup))
    peer = make_peer(launcher=join, name="store", capacity="1GiB")
    with pytest.raises(StoreFullError, match="left to the cgroup"):
        peer(fill)
    count, intact = peer(check)
    assert count > 10
    assert intact
    peer(lambda here: here.store.evict_batch(here.keys[:5]))
    assert peer(lambda here: int(here.store.get(here.store.put(np.full(1 << 20, 7)))[-1])) == 7


def test_the_capacity_by_default(cgroup, make_peer):
    join = ("bash", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup))
    peer = make_peer(launcher=join, name="store")
    with pytest.raises(StoreFullError, match="the capacity is reached"):
        peer(fill)
    assert peer(check)[1]
