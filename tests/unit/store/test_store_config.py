from __future__ import annotations

import pytest

from proxystore_hpc import Store, StoreConfig, get_or_create_store, get_store, unregister_store
from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store import ConnectedStore, ConnectorConfig


def encode(obj):
    return repr(obj).encode()


def decode(raw):
    return raw.decode()


def test_a_store_of_its_configuration():
    with Store(
        "one",
        capacity="16MiB",
        cache_size=3,
        cache_bytes="1MiB",
        timeout=5,
        doors=("shm",),
        metrics=True,
        populate_target=False,
        serializer=encode,
        deserializer=decode,
        grace=0.5,
    ) as first:
        config = first.config()
    with Store.from_config(config) as second:
        assert second.config() == config
        assert second.stats()["capacity"] == 16 * 1024**2
        assert (second.cache.maxsize, second.cache.max_bytes) == (3, 1024**2)
        assert (second.serializer, second.deserializer) == (encode, decode)
        assert second.get(second.put(5)) == "5"


def test_a_configuration_travels_as_text():
    config = StoreConfig("text", capacity=16 * 1024**2, doors=("shm", "socket"), timeout=3.5)
    with Store.from_config(StoreConfig.from_json(config.to_json())) as store:
        assert store.config() == config


def test_get_or_create():
    config = StoreConfig("created", capacity=16 * 1024**2)
    store = get_or_create_store(config)
    try:
        assert get_store("created") is store
        assert get_or_create_store(config) is store
        assert store.get(store.put(3)) == 3
    finally:
        store.close()
    assert get_store("created") is None


def test_registered_by_its_configuration():
    with Store.from_config(StoreConfig("auto", auto_register=True)) as store:
        assert get_store("auto") is store
        unregister_store("auto")
    assert get_store("auto") is None


class OwnStore(Store):
    pass


def test_a_connector_makes_another_kind_of_store(tmp_path):
    config = StoreConfig.from_dict(
        {"name": "c", "connector": {"kind": "file", "options": {"store_dir": str(tmp_path / "a")}}}
    )
    with Store.from_config(config) as store:
        assert isinstance(store, ConnectedStore)
    with pytest.raises(ConfigError, match="store_dir"):
        Store.from_config(StoreConfig("c", ConnectorConfig("file")))
    with pytest.raises(ConfigError, match="ConnectedStore"):
        OwnStore("c", store.connector)
    with pytest.raises(ConfigError, match="OwnStore"):
        OwnStore.from_config(config)


def test_a_store_that_could_not_be_opened_leaves_its_name_free():
    with pytest.raises(ConfigError):
        Store("free", register=True, doors=("nonsense",))
    assert get_store("free") is None
    with Store("free", register=True):
        pass
