from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.connectors.local import LocalConnector
from proxystore_hpc.store.exposition import as_json, as_openmetrics
from proxystore_hpc.store.metrics import StoreMetrics, TimeStats


def sample(metrics=None):
    metrics = metrics or StoreMetrics()
    metrics.add_transfer("shm", 100, 0.5, 2)
    metrics.add_time("store.get", ("k",), 1500.0)
    metrics.add_time("store.get", ("l",), 500.0)
    metrics.add_counter("store.get.cache_hits", ("k",), 3)
    metrics.add_attribute("store.get.door", ("k",), "shm")
    return metrics


def test_json():
    document = json.loads(as_json(sample(), objects=True))
    assert document["doors"] == {"shm": {"operations": 2, "bytes": 100, "seconds": 0.5}}
    assert document["times"]["store.get"]["count"] == 2
    assert document["times"]["store.get"]["avg_time_ms"] == 1000
    assert document["counters"] == {"store.get.cache_hits": 3}
    first, second = document["objects"]
    assert first["key"] == "('k',)"
    assert first["attributes"] == {"store.get.door": "shm"}
    assert second["times"]["store.get"]["max_time_ms"] == 500
    assert "objects" not in json.loads(as_json(sample()))


def test_json_has_no_infinities():
    metrics = StoreMetrics()
    metrics._forgotten["nothing"] = TimeStats()
    assert json.loads(as_json(metrics))["times"]["nothing"]["min_time_ms"] is None


def test_openmetrics():
    text = as_openmetrics(sample(), labels={"store": 'a "b"\n\\'})
    assert text.endswith("# EOF\n")
    lines = text.splitlines()
    store = r'store="a \"b\"\n\\"'
    assert f'proxystore_hpc_transfers_total{{{store},door="shm"}} 2' in lines
    assert f'proxystore_hpc_transfer_seconds_total{{{store},door="shm"}} 0.5' in lines
    assert f'proxystore_hpc_operation_seconds_sum{{{store},event="store.get"}} 2.0' in lines
    assert f'proxystore_hpc_operation_seconds_max{{{store},event="store.get"}} 1.5' in lines
    assert f'proxystore_hpc_events_total{{{store},event="store.get.cache_hits"}} 3' in lines


@given(
    st.lists(st.tuples(st.text(max_size=5), st.floats(0, 1e9), st.integers(0, 10**15)), max_size=5),
    st.text(max_size=10),
)
def test_others_can_read_it(events, label):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    metrics = StoreMetrics()
    for name, time_ms, number in events:
        metrics.add_time(name, "key", time_ms)
        metrics.add_counter(name, "key", number)
        metrics.add_transfer(name, number, time_ms)
    text = as_openmetrics(metrics, labels={"store": label})
    found = {family.name: family for family in parser.text_string_to_metric_families(text)}
    samples = found["proxystore_hpc_events"].samples
    totals = metrics.aggregate_counters()
    assert {s.labels["event"]: s.value for s in samples} == totals
    assert all(s.labels["store"] == label for s in samples)


def test_counters_of_forgotten_keys_stay_in_the_sums():
    metrics = StoreMetrics(max_entries=2)
    for number in range(10):
        metrics.add_counter("c", number, 1)
        metrics.add_time("t", number, 1.0)
    assert len(metrics) == 2
    assert metrics.aggregate_counters() == {"c": 10}
    assert metrics.aggregate_times()["t"].count == 10
    assert [key for key, _ in metrics.items()] == [8, 9]


def test_times_of_factories_are_in_milliseconds():
    with Store("m", LocalConnector(), metrics=True, populate_target=False) as store:
        proxy = store.proxy([1])
        assert proxy == [1]
        times = store.metrics.get_metrics(proxy).times
        assert times["factory.resolve"].max_time_ms >= times["store.get"].max_time_ms
        assert times["factory.resolve"].max_time_ms < 10_000
