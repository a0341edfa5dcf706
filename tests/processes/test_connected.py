"""Stores over a connector, between processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support.redis_server import redis_server

from proxystore_hpc import Store
from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.connectors.multi import MultiConnector, Policy
from proxystore_hpc.connectors.redis import RedisConnector
from proxystore_hpc.store import get_key


@pytest.fixture(params=["file", "redis", "multi"])
def connector(request, tmp_path):
    if request.param == "file":
        yield FileConnector(str(tmp_path / "objects"))
        return
    with redis_server(tmp_path) as path:
        redis = RedisConnector(unix_socket_path=path, timeout=20)
        if request.param == "redis":
            yield redis
        else:
            elsewhere = (FileConnector(str(tmp_path / "far")), Policy(host_pattern="mars"))
            near = FileConnector(str(tmp_path / "near"))
            inner = {
                "small": (redis, Policy(priority=1, max_size_bytes=500)),
                "large": (near, Policy()),
                "far": elsewhere,
            }
            yield MultiConnector(MultiConnector(inner).config()["connectors"])


def test_proxies_resolve_where_nobody_heard_of_the_store(make_peer, connector):
    peer = make_peer()
    array = np.arange(10_000.0)
    with Store("unheard", connector, populate_target=False) as store:
        large, small = pickle.dumps(store.proxy(array)), pickle.dumps(store.proxy([1, 2]))

        def resolve(here, large, small):
            import sys

            assert "proxystore_hpc.store" not in sys.modules
            large, small = pickle.loads(large), pickle.loads(small)
            return float(large.sum()), list(small)

        assert peer(resolve, large, small) == (array.sum(), [1, 2])


def test_proxies_come_back_after_their_maker_ended(make_peer, connector):
    config = Store("back", connector).config()
    peer = make_peer()

    def make(here, config):
        from proxystore_hpc import get_or_create_store

        store = get_or_create_store(config)
        return pickle.dumps(store.proxy({"from": "afar"}, populate_target=False))

    pickled = peer(make, config)
    assert peer.end() == 0
    assert pickle.loads(pickled) == {"from": "afar"}
    from proxystore_hpc import get_store

    get_store("back").close()


def test_an_evict_is_heard_in_other_processes(make_peer, connector):
    peer = make_peer()
    with Store("heard", connector, populate_target=False) as store:
        proxy = store.proxy([1])
        key = get_key(proxy)

        def look(here, pickled):
            from proxystore_hpc import get_store

            here.proxy = pickle.loads(pickled)
            here.store = get_store(here.proxy)
            key = get_key(here.proxy)
            return here.store.get(key), here.store.is_cached(key)

        assert peer(look, pickle.dumps(proxy)) == ([1], True)
        store.evict(key)
        assert peer(lambda here: here.store.exists(get_key(here.proxy))) is False
        assert peer(lambda here: here.store.get(get_key(here.proxy))) is None


def test_what_another_process_stores_later_is_waited_for(make_peer, connector):
    peer = make_peer()
    with Store("later", connector) as store:
        key = store.new_key()

        def wait(here, config, key):
            from proxystore_hpc import get_or_create_store

            store = get_or_create_store(config)
            store.wait_for(key, timeout=20)
            return store.get(key)

        pending = peer.start(wait, store.config(), key)
        store.set(key, "now")
        assert pending.result() == "now"


def test_a_worker_that_ends_leaves_what_others_stored(make_peer, tmp_path):
    peer = make_peer()
    with Store("workers", FileConnector(str(tmp_path / "a"))) as store:
        key = store.put("the maker's")

        def work(here, config):
            from proxystore_hpc import get_or_create_store

            with get_or_create_store(config) as store:
                store.put("the worker's")

        peer(work, store.config())
        assert peer.end() == 0
        assert store.get(key) == "the maker's"
