from __future__ import annotations

import threading
import time

import pytest

from proxystore_hpc.exceptions import ProxyStoreFactoryError, StoreExistsError
from proxystore_hpc.store import registry
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.registry import (
    get_or_create_store,
    get_store,
    register_store,
    set_store_creator,
    store_registration,
    unregister_store,
)


class Named:
    """All that the registry asks of a store is its name."""

    def __init__(self, name):
        self.name = name


@pytest.fixture
def creator():
    made = []
    before = registry._create

    def create(config):
        time.sleep(0.05)
        made.append(Named(config.name))
        return made[-1]

    set_store_creator(create)
    yield made
    registry._create = before
    for store in made:
        unregister_store(store)


def test_register_get_unregister():
    store = Named("r1")
    assert get_store("r1") is None
    register_store(store)
    assert get_store("r1") is store
    unregister_store("r1")
    unregister_store("r1")
    assert get_store("r1") is None


def test_a_name_is_taken_once():
    first, second = Named("r2"), Named("r2")
    with store_registration(first):
        with pytest.raises(StoreExistsError, match="'r2'"):
            register_store(second)
        assert get_store("r2") is first
        register_store(second, exist_ok=True)
        assert get_store("r2") is second
        unregister_store(first)
        assert get_store("r2") is second
        unregister_store(second)
    assert get_store("r2") is None


def test_an_exception_unregisters():
    stores = [Named("r3"), Named("r4")]

    def fail():
        with store_registration(*stores):
            assert get_store("r4") is stores[1]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert get_store("r3") is None
    assert get_store("r4") is None


def test_all_or_none_are_registered():
    taken = Named("r6")
    with store_registration(taken):
        with (
            pytest.raises(StoreExistsError),
            store_registration(Named("r5"), Named("r6"), Named("r7")),
        ):
            pass
        assert get_store("r5") is None
        assert get_store("r6") is taken
        assert get_store("r7") is None


def test_a_store_is_created_once(creator):
    config = StoreConfig("r8")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(get_or_create_store(config))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(creator) == 1
    assert found == creator * 4
    assert get_store("r8") is creator[0]


def test_a_store_need_not_be_registered(creator):
    store = get_or_create_store(StoreConfig("r9"), register=False)
    assert store is creator[0]
    assert get_store("r9") is None


def test_a_registered_store_is_found_while_another_is_opened(creator):
    store = Named("r10")
    with store_registration(store):
        opening = threading.Thread(target=get_or_create_store, args=(StoreConfig("r11"),))
        opening.start()
        assert get_store("r10") is store
        assert not creator
        opening.join()
    assert len(creator) == 1


def test_a_proxy_finds_its_store_unresolved():
    proxies = pytest.importorskip("proxystore_hpc.proxy")
    store = Named("r12")

    class Factory:
        def get_store(self):
            return store

        def __call__(self):
            raise AssertionError("resolved")

    proxy = proxies.Proxy(Factory())
    assert get_store(proxy) is store
    assert not proxies.is_resolved(proxy)


def test_a_proxy_of_something_else_is_refused():
    proxies = pytest.importorskip("proxystore_hpc.proxy")
    with pytest.raises(ProxyStoreFactoryError, match="function"):
        get_store(proxies.Proxy(lambda: 1))
