from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.connectors.file import FileConnector
from proxystore_hpc.connectors.local import LocalConnector
from proxystore_hpc.connectors.multi import MultiConnector, MultiConnectorError, MultiKey, Policy


class Failing(LocalConnector):
    def put(self, obj):
        raise RuntimeError("cannot")

    def close(self):
        raise RuntimeError("cannot close")


class Plain:
    """A connector whose keys come with objects only."""

    def __init__(self):
        self.inner = LocalConnector()

    def __getattr__(self, name):
        if name in ("new_key", "set", "put_parts"):
            raise AttributeError(name)
        return getattr(self.inner, name)


def test_the_first_policy_by_priority_that_takes_an_object_gets_it():
    small, large, last = LocalConnector(), LocalConnector(), LocalConnector()
    connector = MultiConnector(
        {
            "last": (last, Policy()),
            "small": (small, Policy(priority=2, max_size_bytes=10)),
            "large": (large, Policy(priority=1, min_size_bytes=100)),
        }
    )
    assert connector.connectors_by_priority == ["small", "large", "last"]
    keys = connector.put_batch([b"x" * 10, b"x" * 11, b"x" * 100, memoryview(b"y" * 10)])
    assert [key.connector_name for key in keys] == ["small", "last", "large", "small"]
    assert connector.put(memoryview(bytearray(88)).cast("d")).connector_name == "last"


def test_tags():
    policy = Policy(subset_tags=["a", "b"], superset_tags=["c"])
    connector = MultiConnector({"only": (LocalConnector(), policy)})
    assert connector.put(b"", subset_tags=["a"], superset_tags=["c", "d"])
    assert connector.put(b"", superset_tags=iter(["c"])).connector_name == "only"
    for tags in ({}, {"subset_tags": ["z"], "superset_tags": ["c"]}, {"superset_tags": ["d"]}):
        with pytest.raises(MultiConnectorError, match="only"):
            connector.put(b"", **tags)


@given(
    st.builds(
        Policy,
        priority=st.integers(-5, 5),
        host_pattern=st.none() | st.text(max_size=4) | st.lists(st.text(max_size=4), max_size=3),
        min_size_bytes=st.integers(0, 100),
        subset_tags=st.lists(st.text(max_size=3), max_size=3),
    )
)
def test_a_policy_travels_as_plain_values(policy):
    assert Policy(**json.loads(json.dumps(policy.as_dict()))) == policy


def test_a_pattern_may_be_an_iterator():
    policy = Policy(host_pattern=iter(["nowhere", ".*"]))
    assert policy.is_valid_on_host()
    assert policy.is_valid_on_host()
    assert not Policy(host_pattern="no such host").is_valid_on_host()


def test_connectors_for_other_hosts_sleep_and_travel_on(tmp_path):
    elsewhere = ("nowhere.Connector", {}, Policy(host_pattern="mars").as_dict())
    here = (
        "proxystore_hpc.connectors.file.FileConnector",
        {"store_dir": str(tmp_path / "a")},
        Policy().as_dict(),
    )
    connector = MultiConnector({"far": elsewhere, "near": here})
    assert list(connector.connectors) == ["near"]
    first = json.dumps(connector.config())
    assert json.dumps(connector.config()) == first
    assert set(connector.config()["connectors"]) == {"far", "near"}
    again = MultiConnector.from_config(connector.config())
    assert again.get(connector.put(b"x")) == b"x"
    with pytest.raises(MultiConnectorError, match="mars"):
        connector.get(MultiKey("far", ()))
    with pytest.raises(MultiConnectorError, match="unknown"):
        connector.get(MultiKey("nobody", ()))
    connector.close()


def test_a_class_that_is_not_here_is_named():
    with pytest.raises(MultiConnectorError, match="nowhere"):
        MultiConnector({"a": ("nowhere.Connector", {}, Policy().as_dict())})


def test_a_batch_that_fails_leaves_nothing():
    good = LocalConnector()
    connector = MultiConnector(
        {
            "good": (good, Policy(priority=1, max_size_bytes=3)),
            "bad": (Failing(), Policy()),
        }
    )
    with pytest.raises(RuntimeError):
        connector.put_batch([b"abc", b"abcd"])
    assert good._store == {}


def test_futures_go_to_a_connector_that_has_them():
    connector = MultiConnector(
        {"plain": (Plain(), Policy(priority=1)), "able": (LocalConnector(), Policy())}
    )
    key = connector.new_key()
    assert key.connector_name == "able"
    connector.set(key, b"x")
    assert connector.get(key) == b"x"
    with pytest.raises(MultiConnectorError):
        MultiConnector({"plain": (Plain(), Policy())}).new_key()


def test_parts_reach_connectors_with_and_without_a_way_for_them(tmp_path):
    for inner in (LocalConnector(), FileConnector(str(tmp_path / "a"))):
        with MultiConnector({"a": (inner, Policy(max_size_bytes=5))}) as connector:
            key = connector.put_parts([b"ab", memoryview(b"cde")])
            assert connector.get(key) == b"abcde"
            with pytest.raises(MultiConnectorError):
                connector.put_parts([b"abc", b"def"])


def test_all_are_closed_even_if_one_cannot(tmp_path):
    file = FileConnector(str(tmp_path / "a"))
    connector = MultiConnector({"a": (file, Policy()), "b": (Failing(), Policy())})
    connector.put_batch([])
    with pytest.raises(RuntimeError, match="close"):
        connector.close()
    assert not (tmp_path / "a").exists()
