"""Our connectors in ProxyStore's own Store, also where only the proxy arrives."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support.redis_server import redis_server

from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.connectors.hpc import HPCConnector
from proxystore_hpc.connectors.multi import MultiConnector, Policy
from proxystore_hpc.connectors.redis import RedisConnector
from proxystore_hpc.exceptions import OwnerGoneError

pytest.importorskip("proxystore")

import proxystore.connectors.protocols as protocols
from proxystore.store.base import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=["file", "redis", "multi", "hpc"])
def connector(request, tmp_path):
    if request.param == "file":
        yield FileConnector(str(tmp_path / "objects"))
    elif request.param == "hpc":
        yield HPCConnector("in-theirs", capacity="64MiB")
    elif request.param == "redis":
        with redis_server(tmp_path) as path:
            yield RedisConnector(unix_socket_path=path, timeout=20)
    else:
        yield MultiConnector(
            {
                "large": (HPCConnector("large", capacity="64MiB"), Policy(min_size_bytes=1000)),
                "small": (FileConnector(str(tmp_path / "small")), Policy(max_size_bytes=999)),
            }
        )


def resolve(here, pickled):
    """In a process that has neither the store nor the connector."""
    here.proxies = pickle.loads(pickled)
    return [np.asarray(proxy).tolist() for proxy in here.proxies]


def test_protocols_are_the_same(connector):
    assert isinstance(connector, protocols.Connector)
    assert isinstance(connector, protocols.DeferrableConnector)


def test_their_store_works_with_our_connector(connector):
    with Store("theirs", connector, cache_size=0, register=True) as store:
        objects = [b"bytes", "text", [1, 2], np.arange(1000.0), None]
        keys = store.put_batch(objects)
        for key, obj in zip(keys, objects, strict=True):
            np.testing.assert_equal(store.get(key), obj)
        store.evict(keys[0])
        assert not store.exists(keys[0])
        assert store.get(keys[0], default="gone") == "gone"
        future = store.future(polling_interval=0.01)
        proxy = future.proxy()
        future.set_result([7])
        assert proxy == [7]


def test_proxies_of_their_store_resolve_in_another_process(make_peer, connector):
    peer = make_peer()
    with Store("theirs", connector, populate_target=False, register=True) as store:
        proxies = [store.proxy(np.arange(3.0)), store.proxy(np.arange(2000.0))]
        expected = [list(range(3)), list(range(2000))]
        assert peer(resolve, pickle.dumps(proxies)) == expected


@pytest.mark.full
def test_futures_of_their_store_are_set_in_another_process(make_peer, connector):
    peer = make_peer()
    with Store("theirs", connector, register=True) as store:
        future = store.future(polling_interval=0.01, polling_timeout=20)

        def answer(here, pickled):
            pickle.loads(pickled).set_result([1, 2])

        peer(answer, pickle.dumps(future))
        assert future.result() == [1, 2]


def hpc_store(**options):
    connector = HPCConnector("zero-copy", capacity="64MiB")
    return Store(
        "zero-copy",
        connector,
        serializer=connector.serialize,
        deserializer=connector.deserialize,
        register=True,
        populate_target=False,
        **options,
    )


def test_the_pair_of_serializers_makes_their_store_copy_nothing():
    with hpc_store() as store:
        array = np.arange(100_000.0)
        key = store.put(array)
        first, second = store.get(key), store.connector.deserialize(store.connector.get(key))
        np.testing.assert_array_equal(first, array)
        place = first.__array_interface__["data"][0]
        assert place == second.__array_interface__["data"][0]
        assert not first.flags.writeable
        assert store.connector.store.stats()["objects"] == 1


def test_the_pair_works_in_a_process_that_has_neither(make_peer):
    peer = make_peer()
    with hpc_store() as store:
        proxies = [store.proxy([1.0, 2.0]), store.proxy(np.arange(100_000.0))]
        expected = [[1.0, 2.0], list(map(float, range(100_000)))]
        assert peer(resolve, pickle.dumps(proxies)) == expected

        def look_and_answer(here):
            from proxystore.store import get_store

            store = get_store("zero-copy")
            array = here.proxies[1] + 0  # resolved above
            mapped = store.connector.get(store.put(np.ones(5)))
            assert store.connector.store.metrics.doors["shm"].operations == 2
            here.answer = store.proxy(array * 2)
            return type(mapped).__name__, pickle.dumps(here.answer)

        kind, answer = peer(look_and_answer)
        assert kind == "memoryview"
        np.testing.assert_array_equal(pickle.loads(answer), np.arange(100_000.0) * 2)


def test_what_was_put_ends_with_the_store():
    store = hpc_store()
    key = store.put([1])
    connector = store.connector
    store.close()
    with (
        HPCConnector("other", capacity="16MiB") as other,
        pytest.raises(OwnerGoneError),
    ):
        other.get(key)
    assert connector._memory._store is None
