from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxystore_hpc import Store


@pytest.fixture
def store() -> Iterator[Store]:
    with Store("cli", capacity="64MiB") as store:
        yield store


@pytest.fixture
def key_file(store: Store, tmp_path: Path) -> Callable[..., str]:
    """`key_file(obj)` stores an object and exports its key."""

    def export(obj: Any, name: str = "object.key", **options: Any) -> str:
        store.export(store.put(obj, **options), tmp_path / name)
        return str(tmp_path / name)

    return export
