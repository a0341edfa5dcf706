"""Awaiting what only an `await` expression accepts."""

from __future__ import annotations

import types
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def awaited(target: Awaitable[T] | types.CoroutineType[object, object, T]) -> T:
    """Awaits a coroutine made by `types.coroutine`, which may not be returned by `__await__`."""
    return await target
