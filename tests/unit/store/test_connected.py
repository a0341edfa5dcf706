"""Stores over a connector, in one process."""

from __future__ import annotations

import gc
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from proxystore_hpc import Store, get_store
from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.connectors.local import LocalConnector, LocalKey
from proxystore_hpc.connectors.multi import MultiConnector, Policy
from proxystore_hpc.exceptions import (
    ConfigError,
    NoMemoryOfItsOwnError,
    NonProxiableTypeError,
    NotDeferrableError,
    ObjectMissingError,
    OperationTimeoutError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    SerializationError,
    StoreClosedError,
    StoreExistsError,
)
from proxystore_hpc.proxy import Proxy, extract, get_factory, is_resolved
from proxystore_hpc.store import ConnectedStore, StoreConfig, StoreFactory, get_key
from proxystore_hpc.store.config import ConnectorConfig
from proxystore_hpc.store.policy import TimeToLive
from proxystore_hpc.store.utils import resolve_async

OBJECTS = [b"bytes", "text", 1.5, [1, {"a": (2, 3)}], np.arange(12.0).reshape(3, 4), np.zeros(0)]


class Counting(LocalConnector):
    """Counts what it is asked, and can be slow."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.asked: dict[str, int] = {}
        self.delay = delay
        self.running = self.most = 0
        self.lock = threading.Lock()

    def config(self):
        return {"delay": self.delay}

    def _count(self, name):
        with self.lock:
            self.asked[name] = self.asked.get(name, 0) + 1
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.delay)
        with self.lock:
            self.running -= 1

    def get(self, key):
        self._count("get")
        return super().get(key)

    def exists(self, key):
        self._count("exists")
        return super().exists(key)

    def get_batch(self, keys):
        self._count("get_batch")
        return super().get_batch(keys)

    def put_batch(self, objs):
        self._count("put_batch")
        return super().put_batch(objs)


class NoFutures:
    """The nine methods that a connector has to have, and no others."""

    def __init__(self):
        self._inner = LocalConnector()
        for name in ("close", "evict", "exists", "get", "get_batch", "put", "put_batch"):
            setattr(self, name, getattr(self._inner, name))

    def config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


@pytest.fixture
def connector():
    return Counting()


@pytest.fixture
def store(connector):
    with Store("connected", connector, populate_target=False) as store:
        yield store


@pytest.mark.parametrize("wrong", [LocalConnector, "redis", object()])
def test_what_is_no_connector_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"LocalConnector\(\)"):
        Store("wrong", wrong)
    assert get_store("wrong") is None


def test_a_store_with_a_connector_is_a_store(store, connector):
    assert isinstance(store, Store)
    assert type(store) is ConnectedStore
    assert store.connector is connector
    assert store.name == "connected"
    assert "Counting" in repr(store)


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: type(obj).__name__)
def test_objects_come_back(store, obj):
    key = store.put(obj)
    assert isinstance(key, LocalKey)
    for _ in range(2):
        np.testing.assert_equal(store.get(key), obj)
    assert store.exists(key)
    store.evict(key)
    assert not store.exists(key)
    assert store.get(key, default="none") == "none"
    with pytest.raises(ObjectMissingError) as caught:
        store.get_or_raise(key)
    assert caught.value.key == key


def test_arrays_are_read_only_unless_a_writable_one_is_asked_for(store):
    key = store.put(np.arange(5))
    assert not store.get(key).flags.writeable
    changed = store.get(key, writable=True)
    changed[:] = 9
    np.testing.assert_array_equal(store.get(key), np.arange(5))


def test_batches_ask_the_connector_once(store, connector):
    keys = store.put_batch(OBJECTS)
    assert len(keys) == len(OBJECTS)
    store.evict(keys[1])
    found = store.get_batch(keys, default="gone")
    assert found[1] == "gone"
    np.testing.assert_equal(found[4], OBJECTS[4])
    assert store.exists_batch(keys) == [True, False, True, True, True, True]
    store.evict_batch(keys)
    assert not any(store.exists_batch(keys))
    assert connector.asked["put_batch"] == connector.asked["get_batch"] == 1
    assert store.put_batch([]) == store.get_batch([]) == []


def test_a_batch_that_cannot_be_serialized_stores_nothing(store, connector):
    with pytest.raises(SerializationError):
        store.put_batch([1, threading.Lock()])
    assert connector._store == {}


def test_serializers_of_the_call_and_of_the_store(connector):
    with Store("s", connector, serializer=str.encode, deserializer=bytes.decode) as store:
        key = store.put("text")
        assert connector.get(key) == b"text"
        assert store.get(key) == "text"
        assert store.get(key, deserializer=lambda data: type(data)) is bytes
        number = store.put(7, serializer=lambda n: memoryview(bytes([n])))
        assert store.get(number, deserializer=lambda data: data[0]) == 7
        with pytest.raises(SerializationError, match="decode"):
            store.get(store.put(b"\xff", serializer=bytes))
        with pytest.raises(TypeError, match="int"):
            store.put(1, serializer=int)


def test_a_cached_payload_gives_objects_of_their_own(store, connector):
    key = store.put([1])
    first = store.get(key)
    assert store.is_cached(key)
    first.append(2)
    assert store.get(key) == [1]
    assert connector.asked["get"] == 1


def test_an_evict_by_another_is_heard(store, connector):
    key = store.put([1])
    store.get(key)
    connector.evict(key)
    assert store.get(key) is None
    assert not store.exists(key)
    assert not store.is_cached(key)


def test_another_deserializer_is_used_on_a_cached_payload(store):
    key = store.put([1])
    store.get(key)
    assert store.get(key, deserializer=len) > 1


def test_shared_objects_are_shared_if_asked_for(connector):
    with Store("shared", connector, options={"share_cached": True}) as store:
        key = store.put([1])
        first = store.get(key)
        assert store.get(key) is first
        assert store.get(key, writable=True) is not first
        assert store.get(key, deserializer=len) > 1
        connector.evict(key)
        assert store.get(key) is None


def test_a_changed_object_is_not_taken_from_the_cache(store):
    key = store.new_key()
    store.set(key, "before")
    assert store.get(key) == "before"
    store.set(key, "after")
    assert store.get(key) == "after"


def test_the_cache_can_be_left_out(connector):
    with Store("uncached", connector, cache_size=0) as store:
        key = store.put(1)
        store.get(key)
        assert not store.is_cached(key)


def test_threads_get_through_a_slow_connector_side_by_side():
    connector = Counting(delay=0.05)
    with Store("slow", connector, cache_size=0) as store, ThreadPoolExecutor(8) as pool:
        keys = [store.put([number]) for number in range(8)]
        assert list(pool.map(store.get, keys)) == [[number] for number in range(8)]
        assert connector.most > 4


def test_threads_take_turns_where_they_are_told_to():
    connector = Counting(delay=0.01)
    options = {"one_at_a_time": True}
    with Store("turns", connector, options=options) as store, ThreadPoolExecutor(4) as pool:
        keys = [store.put(number) for number in range(8)]
        assert list(pool.map(store.get, keys)) == list(range(8))
        assert connector.most == 1


def test_proxies_resolve(store):
    proxy = store.proxy([1, 2])
    assert not is_resolved(proxy)
    assert proxy == [1, 2]
    assert isinstance(get_key(proxy), LocalKey)
    assert get_store(proxy) is store


def test_the_proxy_of_a_store_that_is_not_registered_finds_it(store):
    assert get_store("connected") is None
    assert store.proxy([1])[0] == 1
    assert get_store("connected") is None


def test_proxies_keep_their_target_as_the_store_says(connector):
    with Store("populated", connector) as store:
        assert is_resolved(store.proxy([1]))
        assert not is_resolved(store.proxy([1], populate_target=False))


def test_evicting_proxies(store):
    proxy = store.proxy([1], evict=True)
    key = get_key(proxy)
    assert proxy == [1]
    assert not store.exists(key)
    with pytest.raises(ProxyResolveError) as caught:
        extract(store.proxy_from_key(key))
    assert isinstance(caught.value.cause, ProxyResolveMissingKeyError)
    assert caught.value.cause.store_name == "connected"


def test_threads_may_resolve_one_evicting_proxy():
    connector = Counting(delay=0.005)
    with Store("race", connector, populate_target=False) as store, ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            proxy = store.proxy([7], evict=True)
            start = threading.Barrier(8)

            def look(proxy=proxy, start=start):
                start.wait()
                return proxy[0]

            assert [f.result() for f in [pool.submit(look) for _ in range(8)]] == [7] * 8


def test_batches_of_proxies_are_stored_at_once(store, connector):
    proxies = store.proxy_batch([[1], None, [2], True], skip_nonproxiable=True)
    assert proxies[1] is None
    assert proxies[3] is True
    assert [proxies[0][0], proxies[2][0]] == [1, 2]
    assert connector.asked["put_batch"] == 1
    with pytest.raises(NonProxiableTypeError):
        store.proxy_batch([[1], None])
    with pytest.raises(NonProxiableTypeError):
        store.proxy(None)
    assert store.proxy(None, skip_nonproxiable=True) is None


def test_many_proxies_resolve_by_one_request(store, connector):
    proxies = [store.proxy([number]) for number in range(5)]
    with Store("native", capacity="16MiB", populate_target=False) as native:
        other = native.proxy([99])
        store.resolve([*proxies, other])
        assert connector.asked.get("get", 0) == 0
        assert all(map(is_resolved, [*proxies, other]))
        unresolved = store.proxy(["x"])
        native.resolve([unresolved])
        assert is_resolved(unresolved)


def test_pickled_proxies_find_the_registered_store(connector):
    with Store("registered", connector, register=True, populate_target=False) as store:
        proxy = store.proxy({"a": 1})
        again = pickle.loads(pickle.dumps(proxy))
        assert not is_resolved(again)
        assert again == {"a": 1}
        factory = get_factory(again)
        assert factory == get_factory(proxy)
        assert hash(factory) == hash(get_factory(proxy))
        assert pickle.loads(pickle.dumps(factory)).store_config == store.config()


def test_pickled_proxies_open_a_store_where_there_is_none(tmp_path):
    store = Store("opened", FileConnector(str(tmp_path / "a"), clear=False), cache_size=3)
    pickled = pickle.dumps(store.proxy([5], populate_target=False))
    key = store.put("kept")
    store.close()
    assert get_store("opened") is None
    proxy = pickle.loads(pickled)
    assert proxy[0] == 5
    opened = get_store("opened")
    try:
        assert isinstance(opened, ConnectedStore)
        assert opened.config() == store.config()
        assert opened.get(key) == "kept"
        assert get_store(proxy) is opened
    finally:
        opened.close()


def test_pickled_proxies_are_small(tmp_path):
    with Store("simulation", FileConnector(str(tmp_path)), populate_target=False) as store:
        proxies = [store.proxy(number) for number in range(100)]
        assert len(pickle.dumps(proxies[0])) < 450 + len(str(tmp_path))
        # The configuration is there once.
        assert len(pickle.dumps(proxies)) < 100 * 120


def test_a_configuration_with_a_lambda_travels(tmp_path):
    directory = str(tmp_path / "a")
    factor = 3
    store = Store(
        "lambda",
        FileConnector(directory, clear=False),
        serializer=lambda n: bytes([n * factor]),
        deserializer=lambda data: data[0] // factor,
    )
    pickled = pickle.dumps(store.proxy(7, populate_target=False))
    store.close()
    assert pickle.loads(pickled) == 7
    get_store("lambda").close()


def test_a_class_without_a_path_is_named_when_it_is_needed():
    class Local(LocalConnector):
        pass

    store = Store("local", Local(), populate_target=False)
    proxy = store.proxy([1])
    pickled = pickle.dumps(proxy)
    assert proxy == [1]
    store.close()
    with pytest.raises(ProxyResolveError, match="Local"):
        extract(pickle.loads(pickled))


def test_a_factory_takes_a_configuration(tmp_path):
    config = StoreConfig(
        "made", ConnectorConfig("file", {"store_dir": str(tmp_path / "a"), "clear": True})
    )
    with Store.from_config(config) as store:
        key = store.put([4])
        factory = StoreFactory(key, config, evict=True)
        assert factory.store_config == config
        opened = factory.get_store()
        assert Proxy(factory)[0] == 4
        assert not store.exists(key)
        opened.close()


def test_locked_proxies_and_keys(store):
    key = store.put([3])
    assert store.proxy_from_key(key)[0] == 3
    assert store.locked_proxy([1]).unlock()[0] == 1
    with pytest.raises(ValueError, match="exclude"):
        store.proxy([1], evict=True, lifetime=object())


def test_lifetimes_are_told_of_keys(store):
    class Lifetime:
        keys = ()

        def add_key(self, *keys, store):
            self.keys += keys

    lifetime = Lifetime()
    one = store.put(1, lifetime=lifetime)
    two = store.put_batch([2, 3], lifetime=lifetime)
    proxy = store.proxy([4], lifetime=lifetime)
    assert lifetime.keys == (one, *two, get_key(proxy))


def test_arguments_reach_the_connector():
    connector = MultiConnector(
        {
            "a": (LocalConnector(), Policy(priority=1, subset_tags=["a"])),
            "b": (LocalConnector(), Policy(subset_tags=["b"])),
        }
    )
    with Store("tags", connector, populate_target=False) as store:
        assert store.put([1], subset_tags=["b"]).connector_name == "b"
        assert get_key(store.proxy([1], subset_tags=["b"])).connector_name == "b"
        (proxy,) = store.proxy_batch([[1]], subset_tags=["b"])
        assert get_key(proxy).connector_name == "b"
        assert [key.connector_name for key in store.put_batch([1], subset_tags=["a"])] == ["a"]


def test_objects_that_come_later(store):
    key = store.new_key()
    with pytest.raises(OperationTimeoutError):
        store.wait_for(key, timeout=0.02)
    timer = threading.Timer(0.05, store.set, (key, [1]))
    timer.start()
    store.wait_for(key, timeout=20)
    assert store.get(key) == [1]
    timer.join()


def test_a_connector_without_keys_for_later_says_so():
    with Store("plain", NoFutures()) as store:
        assert store.get(store.put([1])) == [1]
        with pytest.raises(NotDeferrableError, match="NoFutures"):
            store.new_key()
        with pytest.raises(NotImplementedError):
            store.set(LocalKey("a"), 1)


def test_what_only_memory_of_our_own_can_do_is_refused(store):
    for use in (
        lambda: store.put([1], policy=TimeToLive(1)),
        lambda: store.put([1], to=b"somewhere"),
        lambda: store.get(LocalKey("a"), offset=1),
        lambda: store.empty(3),
        lambda: store.address,
        lambda: store.register(bytearray(3)),
        store.stats,
    ):
        with pytest.raises(NoMemoryOfItsOwnError, match="connector"):
            use()
    assert not hasattr(store, "address")
    with pytest.raises(ConfigError, match="capacity"):
        Store("c", LocalConnector(), capacity="1GiB")
    with pytest.raises(ConfigError, match="doors"):
        Store.from_config(StoreConfig("c", ConnectorConfig("local"), doors=("shm",)))


def test_closing(connector, tmp_path):
    file = FileConnector(str(tmp_path / "a"))
    store = Store("closing", file, register=True)
    key = store.put(1)
    store.close(clear=False)
    store.close()
    assert get_store("closing") is None
    assert FileConnector(str(tmp_path / "a")).get(key)
    for use in (store.get, store.evict, store.exists, store.put):
        with pytest.raises(StoreClosedError):
            use(key)


def test_a_name_that_is_taken(connector):
    with Store("taken", connector, register=True):
        with pytest.raises(StoreExistsError):
            Store("taken", LocalConnector(), register=True)
        assert get_store("taken").connector is connector


def test_a_dropped_store_is_not_kept_by_its_proxies(connector):
    store = Store("dropped", connector, populate_target=False)
    proxy = store.proxy([1])
    proxies = [proxy, pickle.loads(pickle.dumps(proxy))]
    found = []
    import weakref

    weakref.finalize(store, found.append, True)
    del store
    gc.collect()
    assert found
    assert len(proxies) == 2


def test_metrics(connector):
    with Store("metrics", connector, metrics=True, populate_target=False) as store:
        proxy = store.proxy(np.zeros(1000))
        key = get_key(proxy)
        _ = proxy.sum()
        store.get(key)
        store.exists(key)
        found = store.metrics.get_metrics(proxy)
        assert found.counters["store.get.cache_misses"] == 1
        assert found.counters["store.get.cache_hits"] == 1
        assert found.attributes["store.put.object_size"] > 8000
        assert {"store.put", "store.put.serialize", "store.put.connector"} <= set(found.times)
        assert {"store.get", "store.get.deserialize", "store.exists"} <= set(found.times)
        assert 0 < found.times["store.get.connector"].max_time_ms < 10_000
        assert store.metrics.doors["Counting"].operations == 2
        batch = store.put_batch([1, 2])
        assert "store.put_batch" in store.metrics.get_metrics(batch).times


def test_a_proxy_may_be_resolved_ahead():
    connector = Counting(delay=0.02)
    with Store("ahead", connector, populate_target=False) as store:
        proxy = store.proxy([1])
        resolve_async(proxy)
        resolve_async(proxy)
        assert proxy == [1]
        resolve_async(proxy)
        gone = store.proxy([2])
        store.evict(get_key(gone))
        resolve_async(gone)
        with pytest.raises(ProxyResolveError):
            extract(gone)
        assert connector.asked["get"] <= 3
