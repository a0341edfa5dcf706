from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from proxystore_hpc.store.metrics import DoorCounters, DoorStats, Metrics, StoreMetrics, TimeStats


class Key(NamedTuple):
    name: str


def test_attributes_counters_and_times():
    metrics = StoreMetrics()
    key = Key("a")
    metrics.add_attribute("store.put.object_size", key, 10)
    metrics.add_attribute("store.put.object_size", key, 20)
    metrics.add_counter("store.get.cache_hits", key, 1)
    metrics.add_counter("store.get.cache_hits", key, 2)
    metrics.add_time("store.get", key, 2.0)
    metrics.add_time("store.get", key, 4.0)
    found = metrics.get_metrics(key)
    assert found.attributes == {"store.put.object_size": 20}
    assert found.counters == {"store.get.cache_hits": 3}
    stats = found.times["store.get"]
    assert (stats.count, stats.avg_time_ms, stats.min_time_ms, stats.max_time_ms) == (2, 3, 2, 4)
    assert stats.last_time_ms == 4
    assert stats.last_timestamp > 1.7e9
    assert found.as_dict()["times"]["store.get"] == stats.as_dict()
    assert metrics.get_metrics(Key("b")) is None


def test_what_is_given_out_is_a_copy():
    metrics = StoreMetrics()
    metrics.add_counter("c", "key", 1)
    metrics.get_metrics("key").counters["c"] = 100
    assert metrics.get_metrics("key") == Metrics(counters={"c": 1})


def test_batches_have_entries_of_their_own():
    metrics = StoreMetrics()
    keys = [Key("a"), Key("b")]
    metrics.add_counter("c", keys, 1)
    assert metrics.get_metrics(tuple(keys)).counters == {"c": 1}
    assert metrics.get_metrics(keys[0]) is None


def test_keys_are_told_apart_even_if_their_hashes_are_equal():
    metrics = StoreMetrics()
    assert hash(-1) == hash(-2)
    metrics.add_counter("c", (-1,), 1)
    assert metrics.get_metrics((-2,)) is None


def test_times_are_aggregated_over_keys():
    metrics = StoreMetrics()
    for index in range(4):
        metrics.add_time("store.get", Key(str(index)), float(index))
    total = metrics.aggregate_times()["store.get"]
    assert (total.count, total.avg_time_ms, total.min_time_ms, total.max_time_ms) == (4, 1.5, 0, 3)
    assert metrics.get_metrics(Key("0")).times["store.get"].count == 1


def test_the_oldest_key_is_forgotten_but_its_times_count():
    metrics = StoreMetrics(max_entries=3)
    for index in range(10):
        metrics.add_time("store.put", index, 1.0)
    assert len(metrics) == 3
    assert metrics.get_metrics(6) is None
    assert metrics.get_metrics(7) is not None
    assert metrics.aggregate_times()["store.put"].count == 10
    with pytest.raises(ValueError, match="room"):
        StoreMetrics(0)


def test_no_times_add_to_nothing():
    assert (TimeStats() + TimeStats()).count == 0
    assert StoreMetrics().aggregate_times() == {}


def test_doors():
    counters = DoorCounters()
    metrics = StoreMetrics(doors=counters)
    metrics.add_transfer("shm", 100, 0.5)
    counters.add("shm", 2**60, 0.25, operations=3)
    counters.add("ucx", 7, 0.1)
    assert metrics.doors == {
        "shm": DoorStats(4, 2**60 + 100, 0.75),
        "ucx": DoorStats(1, 7, 0.1),
    }
    assert metrics.doors["shm"].bytes == 2**60 + 100


def test_a_proxy_stands_for_its_key():
    proxies = pytest.importorskip("proxystore_hpc.proxy")

    class Factory:
        def __init__(self, key):
            self.key = key

        def __call__(self):
            raise AssertionError("resolved")

    metrics = StoreMetrics()
    metrics.add_counter("c", Key("a"), 1)
    metrics.add_counter("c", (Key("a"), Key("b")), 5)
    first, second = proxies.Proxy(Factory(Key("a"))), proxies.Proxy(Factory(Key("b")))
    assert metrics.get_metrics(first).counters == {"c": 1}
    assert metrics.get_metrics([first, second]).counters == {"c": 5}


def test_threads_lose_nothing():
    metrics = StoreMetrics(max_entries=5)

    def work():
        for index in range(2000):
            metrics.add_time("t", index % 7, 1.0)
            metrics.add_transfer("shm", 1, 0.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.aggregate_times()["t"].count == 8000
    assert metrics.doors["shm"].operations == metrics.doors["shm"].bytes == 8000
