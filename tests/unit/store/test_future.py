from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    FutureCancelledError,
    FutureDoneError,
    InvalidArgumentError,
    ObjectEvictedError,
    OperationTimeoutError,
    ProxyResolveError,
    ProxyStoreHpcError,
    StoreClosedError,
    StoreFullError,
)
from proxystore_hpc.proxy import Proxy, is_resolved
from proxystore_hpc.store.completing import as_completed, wait
from proxystore_hpc.store.future import Future


@pytest.fixture
def store():
    with Store("futures", capacity="64MiB", register=True) as store:
        yield store


def dump(obj):
    return repr(obj).encode()


def load(data):
    return ("loaded", bytes(data).decode())


def test_the_life_of_a_future(store):
    future = store.future()
    assert isinstance(future, Future)
    assert not future.done()
    assert not future.cancelled()
    with pytest.raises(OperationTimeoutError):
        future.result(0.01)
    future.set_result([1])
    assert future.done()
    assert future.result() == future.result(0) == [1]
    assert future.exception() is None
    for late in (future.set_result, lambda _: future.set_exception(KeyError())):
        with pytest.raises(FutureDoneError):
            late(2)
    assert not future.cancel()
    assert not future.failed()


def test_falsy_results(store):
    for value in (None, 0, [], "", False):
        future = store.future()
        future.set_result(value)
        assert pickle.loads(pickle.dumps(future)).result(1) == value


def test_exceptions(store):
    future = store.future()
    future.set_exception(OperationTimeoutError("theirs", timeout=3))
    for again in (future, pickle.loads(pickle.dumps(future))):
        with pytest.raises(OperationTimeoutError, match="theirs"):
            again.result(1)
        assert again.exception().timeout == 3
        assert again.failed()
    with pytest.raises(FutureDoneError):
        future.set_result(1)


def test_an_exception_that_no_pickle_holds(store):
    class LocalError(Exception):
        def __reduce__(self):
            raise TypeError("never")

    future = store.future()
    future.set_exception(LocalError("what happened"))
    with pytest.raises(ProxyStoreHpcError, match="LocalError: what happened"):
        future.result(1)


def test_cancelling(store):
    future = store.future()
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    for use in (future.result, future.exception, lambda: future.set_result(1)):
        with pytest.raises(FutureCancelledError):
            use()
    with pytest.raises(ProxyResolveError) as caught:
        len(future.proxy())
    assert isinstance(caught.value.cause, FutureCancelledError)


def test_serializers(store):
    future = pickle.loads(pickle.dumps(store.future(serializer=dump, deserializer=load)))
    future.set_result(5)
    assert future.result() == ("loaded", "5")
    assert future.proxy()[1] == "5"
    failed = store.future(serializer=dump, deserializer=load)
    failed.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        failed.result()


def test_a_result_that_cannot_be_stored_leaves_the_future_unset(store):
    future = store.future()
    with pytest.raises(StoreFullError):
        future.set_result(np.zeros(80 << 20, "u1"))
    assert not future.done()
    future.set_result("small")
    assert future.result() == "small"


def test_proxies(store):
    future = store.future()
    proxy = future.proxy()
    assert type(proxy) is Proxy
    again = pickle.loads(pickle.dumps(proxy))
    assert not is_resolved(again)
    threading.Timer(0.05, future.set_result, [[1, 2]]).start()
    assert sum(again) == sum(proxy) == 3
    with pytest.raises(ProxyResolveError) as caught:
        len(store.future(polling_timeout=0.01).proxy())
    assert isinstance(caught.value.cause, OperationTimeoutError)


def test_evicting(store):
    future = store.future(evict=True)
    future.set_result([1])
    assert sum(future.proxy()) == 1
    assert future.done()
    with pytest.raises(ObjectEvictedError):
        future.result()
    with pytest.raises(FutureDoneError):
        future.set_result(2)


def test_a_store_that_closes_ends_waits():
    store = Store("ends", capacity="16MiB", register=True)
    future = store.future()
    threading.Timer(0.05, store.close).start()
    with pytest.raises((StoreClosedError, ObjectEvictedError)):
        future.result(20)


def test_as_completed(store):
    futures = [store.future() for _ in range(20)]
    futures[7].set_result(7)

    def produce():
        for number in range(20):
            if number == 3:
                futures[3].cancel()
            elif number == 4:
                futures[4].set_exception(KeyError())
            elif number != 7:
                futures[number].set_result(number)

    producer = threading.Thread(target=produce)
    producer.start()
    done = list(as_completed([*futures, *futures], timeout=20))
    producer.join()
    assert len(done) == 20
    assert set(done) == set(futures)
    assert [f.result() for f in futures if not f.failed()] == [
        n for n in range(20) if n not in (3, 4)
    ]
    assert list(as_completed([])) == []


def test_waiting_for_some(store):
    futures = [store.future() for _ in range(4)]
    futures[1].set_result(1)
    futures[2].set_exception(KeyError())
    assert wait(futures, timeout=0.05) == ({*futures[1:3]}, {futures[0], futures[3]})
    assert wait(futures, 5, "FIRST_COMPLETED").done <= {*futures[1:3]}
    assert futures[2] in wait(futures, 5, "FIRST_EXCEPTION").done
    assert wait(futures[1:3]) == ({*futures[1:3]}, set())
    with pytest.raises(InvalidArgumentError):
        wait(futures, 1, "SOME")
    with pytest.raises(OperationTimeoutError):
        list(as_completed(futures, timeout=0))
