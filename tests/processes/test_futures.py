"""Results that are set in one process and waited for in others."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from support import procfs

from proxystore_hpc.exceptions import (
    FutureCancelledError,
    FutureDoneError,
    ObjectEvictedError,
    OperationTimeoutError,
    OwnerGoneError,
    ProxyResolveError,
)


def new_future(owner, **options):
    """A future that the process `owner` made, pickled."""
    return owner(lambda here: pickle.dumps(here.store.future(**options)))


def set_there(side, packed, value):
    side(lambda here: pickle.loads(packed).set_result(value))


@pytest.mark.parametrize("doors", [None, ("socket",)], ids=str)
def test_another_process_sets_what_the_owner_waits_for(make_peer, owner, doors):
    def make(here):
        here.future = here.store.future()
        return pickle.dumps(here.future)

    packed = owner(make)
    producer = make_peer(name="store", doors=doors)
    waiting = owner.start(lambda here: here.future.result(20).sum())
    set_there(producer, packed, np.arange(100_000.0))
    assert waiting.result() == np.arange(100_000.0).sum()
    assert owner(lambda here: here.future.done())


def test_one_waits_that_neither_owns_nor_sets(make_peer, owner, reader):
    packed = new_future(owner)
    producer = make_peer(name="store")
    waiting = reader.start(lambda here: pickle.loads(packed).result(20))
    set_there(producer, packed, {"a": [1]})
    assert waiting.result() == {"a": [1]}


def test_proxies_wait(owner, reader):
    packed = owner(
        lambda here: (
            setattr(here, "future", here.store.future()),
            pickle.dumps(here.future.proxy()),
        )[1]
    )
    waiting = reader.start(lambda here: sum(pickle.loads(packed)))
    owner(lambda here: here.future.set_result([1, 2, 3]))
    assert waiting.result() == 6


def test_a_process_without_a_store_waits(make_peer, owner):
    packed = new_future(owner)
    consumer = make_peer(local=False)
    waiting = consumer.start(lambda here: pickle.loads(packed).result(20))
    set_there(owner, packed, "told")
    assert waiting.result() == "told"


def test_exceptions_are_results(owner, reader):
    packed = new_future(owner)
    proxy = owner(lambda here: pickle.dumps(pickle.loads(packed).proxy()))
    reader(lambda here: pickle.loads(packed).set_exception(KeyError("what")))
    for side in (owner, reader):
        with pytest.raises(KeyError, match="what"):
            side(lambda here: pickle.loads(packed).result(5))
        assert isinstance(side(lambda here: pickle.loads(packed).exception(5)), KeyError)
    with pytest.raises(ProxyResolveError) as caught:
        reader(lambda here: len(pickle.loads(proxy)))
    assert isinstance(caught.value.cause, KeyError)


def test_cancelled_here_is_cancelled_there(owner, reader):
    packed = new_future(owner)
    waiting = owner.start(lambda here: pickle.loads(packed).result(20))
    assert reader(lambda here: pickle.loads(packed).cancel())
    with pytest.raises(FutureCancelledError):
        waiting.result()
    with pytest.raises(FutureCancelledError):
        set_there(owner, packed, 1)
    assert owner(lambda here: (pickle.loads(packed).cancelled(), pickle.loads(packed).cancel()))


def test_of_many_producers_one_wins(make_peer, owner):
    packed = [new_future(owner) for _ in range(10)]
    producers = [make_peer(name="store") for _ in range(2)]

    def race(here, number):
        won = []
        for index, future in enumerate(packed):
            try:
                pickle.loads(future).set_result(number)
            except FutureDoneError:
                continue
            won.append(index)
        return won

    under_way = [peer.start(race, number) for number, peer in enumerate(producers)]
    won = [pending.result() for pending in under_way]
    assert sorted(index for each in won for index in each) == list(range(10))
    results = owner(lambda here: [pickle.loads(future).result(5) for future in packed])
    assert all(index in won[number] for index, number in enumerate(results))


def test_the_owner_dies(make_peer, reader):
    owner = make_peer(name="store")
    packed = new_future(owner)
    waiting = reader.start(lambda here: pickle.loads(packed).result(30))
    time.sleep(0.2)
    owner.kill()
    with pytest.raises(OwnerGoneError):
        waiting.result(20)
    assert reader(lambda here: pickle.loads(packed).done())
    with pytest.raises(OwnerGoneError):
        set_there(reader, packed, 1)


def test_time_is_up(owner, reader):
    packed = new_future(owner, polling_timeout=0.2)
    for side in (owner, reader):
        with pytest.raises(OperationTimeoutError):
            side(lambda here: pickle.loads(packed).result(0.1))
        with pytest.raises(ProxyResolveError) as caught:
            side(lambda here: len(pickle.loads(packed).proxy()))
        assert isinstance(caught.value.cause, OperationTimeoutError)
    assert not reader(lambda here: pickle.loads(packed).done())


def test_evicting_ones(owner, reader):
    packed = new_future(owner, evict=True)
    set_there(owner, packed, [1])

    def twice(here):
        future = pickle.loads(packed)
        return future.result(5), future.result(5)

    assert reader(twice) == ([1], [1])
    with pytest.raises(ObjectEvictedError):
        owner(lambda here: pickle.loads(packed).result(5))


@pytest.mark.parametrize("doors", [None, ("socket",)], ids=str)
def test_as_completed_starts_no_threads(make_peer, owner, doors):
    consumer = make_peer(name="store", doors=doors, register=True)
    packed = [new_future(owner) for _ in range(100)]

    def consume(here):
        from proxystore_hpc.store.completing import as_completed

        futures = [pickle.loads(each) for each in packed]
        here.store.exists(futures[0]._factory.key)
        threads, order = procfs.thread_count(), []
        for future in as_completed(futures, timeout=30):
            order.append(future.result(0))
        return order, procfs.thread_count() - threads

    waiting = consumer.start(consume)
    expected = list(range(99, -1, -1))
    for number in expected:
        set_there(owner, packed[number], number)
    order, threads = waiting.result()
    assert sorted(order) == sorted(expected)
    assert threads == 0


def test_as_completed_at_the_owner(owner, reader):
    def consume(here):
        from proxystore_hpc.store.completing import as_completed

        return [future.result(0) for future in as_completed(here.futures, timeout=30)]

    def make(here):
        here.futures = [here.store.future() for _ in range(50)]
        return [pickle.dumps(future) for future in here.futures]

    packed = owner(make)
    waiting = owner.start(consume)
    for number in (3, 1, 2):
        set_there(reader, packed[number], number)
        time.sleep(0.05)
    for number in {*range(50)} - {1, 2, 3}:
        set_there(reader, packed[number], number)
    order = waiting.result()
    assert order[:3] == [3, 1, 2]
    assert sorted(order) == list(range(50))


def test_wait_and_as_completed_end_in_time(owner, reader):
    packed = [new_future(owner) for _ in range(3)]
    set_there(owner, packed[1], "x")

    def waits(here):
        from proxystore_hpc.store.completing import FIRST_COMPLETED, as_completed, wait

        futures = [pickle.loads(each) for each in packed]
        done, not_done = wait(futures, timeout=0.2)
        first = wait(futures, timeout=10, return_when=FIRST_COMPLETED).done
        given = []
        try:
            for future in as_completed(futures, timeout=0.2):
                given.append(future)
        except OperationTimeoutError:
            return done == {futures[1]}, len(not_done), first == done, given == [futures[1]]

    for side in (owner, reader):
        assert side(waits) == (True, 2, True, True)
