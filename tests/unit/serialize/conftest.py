from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_hpc.serialize import loads, plan

ORIGIN = 64


def store(obj: Any) -> memoryview:
    """The object in a page-aligned block behind a core header, gaps filled with garbage."""
    layout = plan(obj)
    block = mmap.mmap(-1, ORIGIN + max(layout.nbytes, 1))
    view = memoryview(block)
    if layout.nbytes < 1 << 24:
        view[:] = b"\xaa" * len(view)
    for offset, segment in layout.segments():
        view[ORIGIN + offset : ORIGIN + offset + len(segment)] = segment
    return view[ORIGIN:]


@pytest.fixture
def through() -> Callable[..., Any]:
    """Stores an object in a block and builds it again."""

    def run(obj: Any, **kwargs: Any) -> Any:
        return loads(store(obj), **kwargs)

    return run


@pytest.fixture(name="store")
def store_fixture() -> Callable[[Any], memoryview]:
    return store
