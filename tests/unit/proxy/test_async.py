"""Awaiting and asynchronous iteration through a proxy."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from proxystore_hpc.proxy import Proxy


def of(target: Any) -> Proxy[Any]:
    return Proxy(lambda: target)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def awaiting(target: Any) -> Any:
    return await target


def test_coroutine_function() -> None:
    assert asyncio.run(awaiting(of(answer)())) == 42


def test_coroutine() -> None:
    assert asyncio.run(awaiting(of(answer()))) == 42


def test_future() -> None:
    async def main() -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, 7)
        return await of(future)

    assert asyncio.run(main()) == 7


def test_coroutine_made_of_a_generator() -> None:
    @types.coroutine
    def old_style() -> Generator[Any, Any, int]:
        result = yield from answer().__await__()
        return result + 1

    assert asyncio.run(awaiting(of(old_style()))) == 43


@pytest.mark.parametrize("target", [3, [1], (x for x in "ab")], ids=["int", "list", "generator"])
def test_what_cannot_be_awaited(target: Any) -> None:
    with pytest.raises(TypeError, match="can't be used in 'await' expression"):
        asyncio.run(awaiting(of(target)))


def test_asynchronous_iteration() -> None:
    async def count() -> AsyncIterator[int]:
        for i in range(3):
            yield i

    async def main() -> tuple[list[int], int]:
        found = [i async for i in of(count())]
        iterator = of(count())
        return found, await anext(iterator)

    assert asyncio.run(main()) == ([0, 1, 2], 0)


def test_what_is_not_asynchronously_iterable() -> None:
    async def main() -> None:
        async for _ in of([1]):
            pass

    with pytest.raises(TypeError, match="__aiter__"):
        asyncio.run(main())
    with pytest.raises(TypeError, match="__anext__"):
        asyncio.run(awaiting(anext(of([1]))))


def test_asynchronous_context_manager() -> None:
    events: list[str] = []

    class Manager:
        async def __aenter__(self) -> str:
            events.append("in")
            return "value"

        async def __aexit__(self, *_: Any) -> None:
            events.append("out")

    async def main() -> str:
        async with of(Manager()) as value:
            return str(value)

    assert asyncio.run(main()) == "value"
    assert events == ["in", "out"]
