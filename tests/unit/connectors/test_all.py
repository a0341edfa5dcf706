"""What every connector has to do, whatever it stores in."""

from __future__ import annotations

import json
import pickle
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxystore_hpc.connectors.protocols import Connector, DeferrableConnector, OnceConnector

SIZES = (0, 1, 100, 101, 1 << 20)


def test_they_follow_the_protocols(connector):
    assert isinstance(connector, Connector)
    assert isinstance(connector, DeferrableConnector)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_put_comes_back(connector, size, kind):
    data = bytes(range(256)) * (size // 256 + 1)
    key = connector.put(kind(data[:size]))
    assert bytes(connector.get(key)) == data[:size]
    assert connector.exists(key)
    connector.evict(key)
    assert connector.get(key) is None
    assert not connector.exists(key)
    connector.evict(key)


def test_what_is_put_does_not_change_with_the_buffer(connector):
    buffer = bytearray(b"before")
    key = connector.put(buffer)
    buffer[:] = b"after!"
    assert bytes(connector.get(key)) == b"before"


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(objs=st.lists(st.binary(max_size=300), max_size=8))
def test_batches_do_what_single_calls_do(connector, objs):
    keys = connector.put_batch(objs)
    assert len(set(keys)) == len(objs)
    assert [bytes(found) for found in connector.get_batch(keys)] == objs
    assert [bytes(connector.get(key)) for key in keys] == objs
    for key in keys[::2]:
        connector.evict(key)
    found = connector.get_batch(keys)
    assert found[::2] == [None] * len(found[::2])
    assert [bytes(value) for value in found[1::2]] == objs[1::2]


def test_a_key_may_come_before_what_it_stands_for(connector):
    key = connector.new_key()
    assert connector.get(key) is None
    assert not connector.exists(key)
    connector.set(key, b"late")
    assert bytes(connector.get(key)) == b"late"


@pytest.mark.parametrize("size", [1, 3 << 20])
def test_of_many_who_set_once_one_does(connector, size):
    assert isinstance(connector, OnceConnector)
    for _ in range(5):
        key = connector.new_key()
        start = threading.Barrier(4)
        stored: list[int] = []

        def race(number, key=key, start=start, stored=stored):
            start.wait(10)
            if connector.set_once(key, bytes([number]) * size):
                stored.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        (first,) = stored
        assert connector.get(key) == bytes([first]) * size
        assert not connector.set_once(key, b"late")
        connector.evict(key)


def test_keys_are_tuples_and_travel(connector):
    key = connector.put(b"x")
    again = pickle.loads(pickle.dumps(key))
    assert again == key
    assert hash(again) == hash(key)
    assert isinstance(key, tuple)
    assert key._asdict()


def test_the_configuration_is_plain_and_nobody_else_s(connector):
    before = json.dumps(connector.config())
    taken = connector.config()
    again = type(connector).from_config(taken)
    assert json.dumps(again.config()) == before
    same = type(connector)(**connector.config())
    assert json.dumps(same.config()) == before
    assert json.dumps(connector.config()) == before


def test_threads_may_use_one_connector(connector):
    wrong = []

    def work(number):
        for turn in range(20):
            data = f"{number}-{turn}".encode() * 50
            key = connector.put(data)
            if bytes(connector.get(key)) != data:
                wrong.append((number, turn))
            connector.evict(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["local", "file", "redis", "multi", "hpc"])
def test_close_is_idempotent_and_a_with_block_closes(make, kind):
    with make(kind) as connector:
        connector.put(b"x")
    connector.close()
