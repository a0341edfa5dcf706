"""Key files: what they hold, who may read them, what is no key file."""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxystore_hpc
import proxystore_hpc.key
from proxystore_hpc import Store
from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    InvalidKeyError,
    ProxyStoreFactoryError,
)
from proxystore_hpc.proxy import Proxy, is_resolved
from proxystore_hpc.store import get_key
from proxystore_hpc.store.keyfile import read_key_file


def test_a_key_survives(store: Store, tmp_path: Path) -> None:
    key = store.put([1, 2])
    store.export(key, tmp_path / "object.key")
    found = read_key_file(tmp_path / "object.key")
    assert bytes(found.key) == bytes(key)
    assert found.store_name == store.name
    assert proxystore_hpc.load_key(tmp_path / "object.key") == key
    assert store.get(found.key) == [1, 2]


def test_a_proxy_is_exported_unresolved_and_read_as_one(store: Store, tmp_path: Path) -> None:
    path = str(tmp_path / "object.key")
    proxy = pickle.loads(pickle.dumps(store.proxy({"a": 1})))
    store.export(proxy, path)
    assert not is_resolved(proxy)
    loaded = proxystore_hpc.load_proxy(path)
    assert not is_resolved(loaded)
    assert get_key(loaded) == get_key(proxy)
    with proxystore_hpc.store_registration(store):
        assert loaded == {"a": 1}


def test_only_its_owner_may_read_it(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "object.key"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        store.export(store.put(1), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["object.key"]


def test_a_failure_leaves_the_old_file_and_no_other(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        store.export(store.put(1), path)
    assert os.listdir(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError):
        store.export(store.put(1), tmp_path / "missing" / "object.key")


def test_what_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "object.key"
    with pytest.raises(ProxyStoreFactoryError, match="not created by a store"):
        store.export(Proxy(list), path)
    with pytest.raises(InvalidArgumentError, match="deserializer"):
        store.export(store.proxy([1], serializer=pickle.dumps, deserializer=pickle.loads), path)
    wrong: Any = [1]
    with pytest.raises(InvalidKeyError):
        store.export(wrong, path)
    with pytest.raises(InvalidKeyError):
        store.export(proxystore_hpc.key.Key(b"garbled"), path)
    assert not path.exists()


def test_it_is_json_and_nothing_is_unpickled(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "object.key"
    key = store.put(1)
    store.export(key, path)
    document = json.loads(path.read_text())
    assert document == {
        "proxystore_hpc_key": 1,
        "store": "unit",
        "key": base64.b64encode(bytes(key)).decode(),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proxystore_hpc_key": 2}, "version 2"),
        ({"proxystore_hpc_key": None}, "version None"),
        ({"store": 3}, "version"),
        ({"key": "!!"}, "no key file"),
        ({"key": 7}, "no key file"),
        ({"key": ""}, "no key of"),
        ({"key": base64.b64encode(b"x" * 90).decode()}, "no key of"),
    ],
)
def test_a_damaged_file_is_refused(
    store: Store, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "object.key"
    store.export(store.put(1), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidKeyError, match=words):
        read_key_file(path)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(json.dumps).map(str.encode)))
def test_any_other_file_is_refused(content: bytes) -> None:
    path = Path(f"/proc/self/fd/{os.memfd_create('key')}")
    try:
        path.write_bytes(content)
        with pytest.raises(InvalidKeyError, match="no key file"):
            read_key_file(path)
    finally:
        os.close(int(path.name))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        proxystore_hpc.load_key("/nonexistent/object.key")
