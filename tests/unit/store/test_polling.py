"""Waiting for objects of a connector, which tells nobody that they are there."""

from __future__ import annotations

import pickle
import threading
import time

import pytest

from proxystore_hpc import Store
from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.exceptions import (
    FutureCancelledError,
    FutureDoneError,
    InvalidArgumentError,
    OperationTimeoutError,
    ProxyResolveError,
    StoreClosedError,
)
from proxystore_hpc.proxy import Proxy, extract
from proxystore_hpc.store import PollingStoreFactory
from proxystore_hpc.store.completing import as_completed
from proxystore_hpc.store.polling import Polling


@pytest.fixture
def store(tmp_path):
    with Store("polled", FileConnector(str(tmp_path / "a")), register=True) as store:
        yield store


@pytest.fixture
def factory(store):
    return PollingStoreFactory(store.new_key(), store.config(), polling_timeout=20)


def test_tries_end_at_the_deadline_and_slow_down():
    polling = Polling(interval=0.001, backoff_factor=2, interval_limit=0.004)
    began = time.monotonic()
    tries = [time.monotonic() - began for _ in polling.tries(0.05)]
    assert tries[-1] >= 0.05
    assert 3 <= len(tries) <= 17
    assert len(list(polling.tries(0))) == 1


def test_tries_without_a_deadline_go_on():
    tries = Polling(interval=0).tries(None)
    assert len([next(tries) for _ in range(100)]) == 100


def test_a_proxy_waits_for_its_object(store, factory):
    proxy = pickle.loads(pickle.dumps(Proxy(factory)))
    timer = threading.Timer(0.05, factory.settle, ([1, 2], None, False))
    timer.start()
    assert proxy == [1, 2]
    assert factory.done()
    assert factory() == [1, 2]
    timer.join()


def test_an_exception_takes_the_place_of_an_object(store, factory):
    assert not factory.done()
    factory.settle(LookupError("nothing found"), None, True)
    value, error = pickle.loads(pickle.dumps(factory)).fetch(1)
    assert value is None
    assert isinstance(error, LookupError)
    with pytest.raises(LookupError, match="nothing found"):
        factory.resolve()
    with pytest.raises(ProxyResolveError, match="nothing found"):
        extract(Proxy(factory))


def test_an_exception_that_no_pickle_holds_is_told_as_text(factory):
    class UnpicklableError(Exception):
        def __reduce__(self):
            raise TypeError("no")

    factory.settle(UnpicklableError("what was wrong"), None, True)
    with pytest.raises(Exception, match="what was wrong"):
        factory.resolve()


def test_a_result_is_set_once(store, factory):
    factory.settle("first", None, False)
    for raised in (False, True):
        with pytest.raises(InvalidArgumentError, match="already"):
            factory.settle(ValueError("second"), None, raised)
    assert factory.resolve() == "first"


def test_serializers_of_the_factory(store):
    factory = PollingStoreFactory(store.new_key(), store.config(), deserializer=bytes.decode)
    factory.settle("text", str.encode, False)
    assert factory.resolve() == "text"


def test_evicting(store):
    factory = PollingStoreFactory(store.new_key(), store.config(), evict=True)
    factory.settle("text", None, False)
    assert factory.resolve() == "text"
    assert not store.exists(factory.key)


def test_waiting_ends_in_time_or_with_the_store(store, factory):
    late = PollingStoreFactory(factory.key, store.config(), polling_timeout=0.03)
    with pytest.raises(OperationTimeoutError):
        late.resolve()
    timer = threading.Timer(0.05, store.close)
    timer.start()
    with pytest.raises(StoreClosedError):
        store.wait_for_result(factory.key)
    timer.join()


def test_nobody_tells(factory):
    assert factory.watch(None, 1) is None


def test_an_object_is_got_in_the_background(store):
    key = store.put([1])
    factory = PollingStoreFactory(key, store.config())
    factory.resolve_async()
    factory.resolve_async()
    assert factory() == [1]
    store.evict(key)
    factory.polling_timeout = 0
    with pytest.raises(OperationTimeoutError):
        factory()


def test_futures_of_a_store_with_a_connector(store):
    future = store.future()
    assert not future.done()
    other = pickle.loads(pickle.dumps(future))
    proxy = other.proxy()
    timer = threading.Timer(0.05, future.set_result, ([1],))
    timer.start()
    assert proxy == [1]
    assert other.result(timeout=20) == [1]
    assert future.done()
    with pytest.raises(FutureDoneError):
        other.set_result([2])
    timer.join()


def test_futures_that_fail_or_are_cancelled(store):
    failed, cancelled = store.future(), store.future()
    failed.set_exception(LookupError("no"))
    assert isinstance(pickle.loads(pickle.dumps(failed)).exception(20), LookupError)
    assert cancelled.cancel()
    with pytest.raises(FutureCancelledError):
        cancelled.set_result(1)
    with pytest.raises(OperationTimeoutError):
        store.future().result(timeout=0.02)


def test_many_futures_are_waited_for_at_once(store, tmp_path):
    with Store("native", capacity="16MiB") as native:
        futures = [store.future(), native.future(), store.future()]
        timers = [
            threading.Timer(0.02 * (3 - place), future.set_result, (place,))
            for place, future in enumerate(futures)
        ]
        for timer in timers:
            timer.start()
        assert sorted(future.result() for future in as_completed(futures, 20)) == [0, 1, 2]
        for timer in timers:
            timer.join()
