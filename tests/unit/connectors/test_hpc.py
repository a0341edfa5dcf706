from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
from support.forking import in_child

from proxystore_hpc.connectors.hpc import HPCConnector, HPCKey
from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, StoreClosedError
from proxystore_hpc.key import Key


@pytest.fixture
def connector():
    with HPCConnector("unit", capacity="64MiB") as connector:
        yield connector


def address(array):
    return array.__array_interface__["data"][0]


def test_serialized_objects_are_read_where_they_were_written(connector):
    view = connector.serialize(np.arange(100_000.0))
    key = connector.put(view)
    array = connector.deserialize(connector.get(key))
    np.testing.assert_array_equal(array, np.arange(100_000.0))
    assert not array.flags.writeable
    written = np.frombuffer(view, "u1")
    assert address(written) <= address(array) < address(written) + written.nbytes
    assert connector.store.stats()["objects"] == 1
    # It is an object of the native store, too.
    np.testing.assert_array_equal(connector.store.get(Key(key.packed)), array)


def test_a_result_that_is_not_put_gives_its_memory_back(connector):
    used = connector.store.stats()["used"]
    view = connector.serialize(np.zeros(100_000))
    assert connector.store.stats()["used"] > used
    del view
    gc.collect()
    assert connector.store.stats()["used"] == used


def test_the_same_result_may_be_put_twice(connector):
    view = connector.serialize([1, 2])
    keys = [connector.put(view) for _ in range(2)]
    assert keys[0] != keys[1]
    connector.evict(keys[0])
    assert connector.deserialize(connector.get(keys[1])) == [1, 2]


def test_a_part_of_a_result_is_just_bytes(connector):
    view = connector.serialize(np.arange(1000))
    key = connector.put(view[8:100])
    assert connector.get(key) == view[8:100]


def test_results_go_to_other_connectors_as_bytes(connector, tmp_path):
    from proxystore_hpc.connectors.file import FileConnector

    with FileConnector(str(tmp_path / "a")) as file:
        key = file.put(connector.serialize({"a": 1}))
        assert connector.deserialize(file.get(key)) == {"a": 1}


def test_a_pickled_connector_shares_the_memory(connector):
    key = connector.put(connector.serialize([5]))
    serialize = pickle.loads(pickle.dumps(connector.serialize))
    again = serialize.__self__
    assert again.store is connector.store
    del serialize, again
    gc.collect()
    assert connector.deserialize(connector.get(key)) == [5]


def test_the_last_connector_of_a_name_takes_the_objects_along():
    first, second = HPCConnector("shared", capacity="16MiB"), HPCConnector("shared")
    key = first.put(b"x")
    first.close()
    first.close()
    assert second.get(key) == b"x"
    with pytest.raises(StoreClosedError):
        first.get(key)
    store = second.store
    second.close()
    with pytest.raises(StoreClosedError):
        store.exists(Key(key.packed))


def test_other_options_for_a_name_in_use_are_refused(connector):
    with pytest.raises(ConfigError, match="capacity"):
        HPCConnector("unit", capacity="1MiB")
    with pytest.raises(ConfigError, match="timeout"):
        HPCConnector("unit", timeout=3)


def test_only_what_others_need_travels():
    with HPCConnector("travels", capacity="16MiB", progress="adaptive", timeout=5) as connector:
        assert connector.config() == {"name": "travels", "capacity": "16MiB", "timeout": 5}
        HPCConnector(**connector.config()).close()


def test_a_key_is_set_once(connector):
    key = connector.new_key()
    assert connector.get_batch([key]) == [None]
    connector.set(key, connector.serialize([1]))
    assert connector.deserialize(connector.get(key)) == [1]
    with pytest.raises(InvalidArgumentError):
        connector.set(key, b"again")


def test_a_failed_batch_leaves_nothing(connector):
    before = connector.store.stats()["objects"]
    with pytest.raises(TypeError):
        connector.put_batch([b"x", 3])
    assert connector.store.stats()["objects"] == before


def test_a_forked_child_has_memory_of_its_own(connector):
    key = connector.put(b"parent's")

    def child():
        with HPCConnector("unit", capacity="16MiB") as own:
            return bytes(own.get(own.put(b"child's"))), own.store is connector._memory.store

    assert in_child(child) == (repr((b"child's", False)), 0)
    assert connector.get(key) == b"parent's"


def test_keys_are_tuples(connector):
    assert isinstance(connector.put(b""), HPCKey)
