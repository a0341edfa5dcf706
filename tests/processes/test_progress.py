"""What a get over TCP tells of its progress."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.key import Key
from proxystore_hpc.utils.progress import LEAST

LENGTH = LEAST + 1000


@pytest.fixture(scope="module")
def owner() -> Iterator[Store]:
    with Store("test-progress", tcp=True) as store:
        yield store


@pytest.fixture(scope="module")
def key(owner: Store) -> Key:
    return owner.put(np.arange(LENGTH // 8, dtype="f8"))


@pytest.fixture(params=["tcp", "native"])
def reader(request: pytest.FixtureRequest) -> Iterator[Store]:
    doors = ("tcp",) if request.param == "tcp" else None
    with Store("test-progress", doors=doors, cache_size=0) as store:
        yield store


def check(told: list[tuple[int, int]], total: int) -> None:
    assert told[-1] == (total, total)
    assert all(done <= of == total for done, of in told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_callable_is_told(reader: Store, key: Key) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    assert reader.get(key, progress=tell)[-1] == LENGTH // 8 - 1
    check(told, key.nbytes)
    told.clear()
    target = np.empty(LENGTH // 8)
    assert reader.get_into(key, target, progress=tell) == target.nbytes
    check(told, target.nbytes)
    assert target[-1] == LENGTH // 8 - 1


def test_a_callable_is_told_of_what_is_cached(owner: Store) -> None:
    key = owner.put(b"x" * 1000)
    told: list[tuple[int, int]] = []
    with Store("test-progress", doors=("tcp",)) as store:
        store.get(key)
        assert store.is_cached(key)
        store.get(key, progress=lambda done, total: told.append((done, total)))
    assert told == [(key.nbytes, key.nbytes)]


def on_terminal(arguments: list[Any], **environment: str) -> tuple[int, str]:
    """Status of a program, and what its standard error showed on a terminal."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [str(argument) for argument in arguments],
            env=os.environ | {"COLUMNS": "80"} | environment,
            stderr=theirs,
        ) as program:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 4096)
                except OSError:  # its end
                    break
                if not part:
                    break
                shown += part
            status = program.wait(30)
    finally:
        os.close(ours)
    return status, shown.decode()


GET = """
import sys
from proxystore_hpc import Store
from proxystore_hpc.key import Key

with Store("test-progress", doors=("tcp",)) as store:
    key = Key(bytes.fromhex(sys.argv[1]))
    assert store.get(key, progress=sys.argv[2] == "True") is not None
"""


@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_shows_a_bar_if_asked_to(key: Key, progress: bool) -> None:
    status, shown = on_terminal([sys.executable, "-c", GET, bytes(key).hex(), progress])
    assert status == 0, shown
    if progress:
        assert f"object {key.object_id} [" in shown
        assert "100%  64.0 MiB of 64.0 MiB" in shown
        assert shown.endswith("\n")
    else:
        assert shown == ""


def test_describe_tells_without_fetching(owner: Store, reader: Store, key: Key) -> None:
    info = reader.describe(key)
    assert (info.kind, info.dtype, info.shape) == ("ndarray", "<f8", (LENGTH // 8,))
    assert info.nbytes == LENGTH // 8 * 8
    assert reader.describe(owner.put({"a": 1})).kind == "pickle"


def test_a_small_object_shows_no_bar(owner: Store, tmp_path: Path) -> None:
    small = owner.put(b"x" * 1000)
    status, shown = on_terminal([sys.executable, "-c", GET, bytes(small).hex(), True])
    assert (status, shown) == (0, "")
