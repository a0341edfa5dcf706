"""Handlers that have no answer yet, and no thread that waits for it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.procfs import wait_until

from proxystore_hpc import Engine
from proxystore_hpc.exceptions import OperationTimeoutError, SerializationError
from proxystore_hpc.rpc import Endpoint, LaterAnswer, Request


@pytest.fixture
def kept(engine: Engine) -> list[LaterAnswer]:
    """Answers to calls of `later`, which takes anything."""
    kept: list[LaterAnswer] = []

    def later(request: Request, *_: Any) -> LaterAnswer:
        kept.append(request.later())
        return kept[-1]

    engine.register("later", later)
    return kept


def begin(engine: Engine, itself: Endpoint, kept: list[LaterAnswer], **options: Any) -> Any:
    future = engine.rpc("later").on(itself).submit(**options)
    wait_until(lambda: bool(kept), "the handler has returned")
    return future


def test_many_calls_wait_for_answers_of_another_thread(
    engine: Engine, itself: Endpoint, kept: list[LaterAnswer]
) -> None:
    later = engine.rpc("later").on(itself)
    futures = [later.submit(i) for i in range(50)]  # the pool has two threads
    wait_until(lambda: len(kept) == 50, "all handlers have returned")
    assert not any(future.done() for future in futures)

    def answer() -> None:
        for number, waiting in enumerate(kept):
            assert waiting.reply([number])

    thread = threading.Thread(target=answer)
    thread.start()
    assert sorted(future.result(10)[0] for future in futures) == list(range(50))
    thread.join()


def test_it_can_fail_and_ends_once(
    engine: Engine, itself: Endpoint, kept: list[LaterAnswer]
) -> None:
    future = begin(engine, itself, kept)
    assert kept[0].fail(KeyError("later"))
    assert not kept[0].reply(1)
    assert not kept[0].fail(ValueError())
    with pytest.raises(KeyError, match="later"):
        future.result(10)


def test_a_result_that_cannot_be_sent_is_told(
    engine: Engine, itself: Endpoint, kept: list[LaterAnswer]
) -> None:
    future = begin(engine, itself, kept)
    kept[0].reply(threading.Lock())
    with pytest.raises(SerializationError):
        future.result(10)


def test_it_knows_of_the_deadline_and_of_a_caller_that_gave_up(
    engine: Engine, itself: Endpoint, kept: list[LaterAnswer]
) -> None:
    future = begin(engine, itself, kept, timeout=20)
    assert 0 < kept[0].remaining() < 21
    assert not kept[0].cancelled
    future.cancel()
    wait_until(lambda: kept[0].cancelled, "it is told")
    assert kept[0].reply(1)  # to nobody


def test_one_that_is_dropped_leaves_its_caller_to_the_timeout(
    engine: Engine, itself: Endpoint, kept: list[LaterAnswer]
) -> None:
    future = begin(engine, itself, kept, timeout=0.2)
    kept.clear()
    with pytest.raises(OperationTimeoutError):
        future.result(10)
