"""ProxyStore's connectors in our Store, also where only the proxy arrives."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import procfs
from support.redis_server import free_port, redis_server, require_redis

from proxystore_hpc import Store, get_or_create_store
from proxystore_hpc.exceptions import NotDeferrableError
from proxystore_hpc.store import ConnectorConfig

pytest.importorskip("proxystore")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def resolve(here, pickled):
    """In a process that has neither the store nor the connector."""
    import numpy as np

    large, small = pickle.loads(pickled)
    return float(np.sum(large)), list(small)


def check(store, make_peer=None, *, deferrable=True):
    """What a store has to do with any connector."""
    objects = [b"bytes", [1, {"a": 2}], np.arange(5000.0)]
    for key, obj in zip(store.put_batch(objects), objects, strict=True):
        np.testing.assert_equal(store.get(key), obj)
    key = store.put("text")
    assert store.get(key) == store.get(key) == "text"
    assert store.get_batch([key]) == ["text"]
    store.evict(key)
    assert not store.exists(key)
    assert store.get(key, default="gone") == "gone"
    if deferrable:
        later = store.new_key()
        store.set(later, [3])
        store.wait_for(later, timeout=10)
        assert store.get(later) == [3]
    else:
        with pytest.raises(NotDeferrableError):
            store.new_key()
    if make_peer is not None:
        proxies = [store.proxy(np.ones(3000)), store.proxy([1, 2])]
        assert make_peer()(resolve, pickle.dumps(proxies), timeout=50) == (3000.0, [1, 2])


def test_local():
    from proxystore.connectors.local import LocalConnector

    with Store("theirs", LocalConnector(), populate_target=False) as store:
        check(store)


def test_file(make_peer, tmp_path):
    from proxystore.connectors.file import FileConnector

    with Store("theirs", FileConnector(str(tmp_path / "a")), populate_target=False) as store:
        check(store, make_peer)


def test_redis(make_peer, tmp_path):
    require_redis()
    from proxystore.connectors.redis import RedisConnector

    port = free_port()
    with (
        redis_server(tmp_path, "--port", str(port), "--bind", "127.0.0.1"),
        Store("theirs", RedisConnector("127.0.0.1", port), populate_target=False) as store,
    ):
        check(store, make_peer)


def test_multi_is_rebuilt_elsewhere(make_peer, tmp_path):
    from proxystore.connectors.file import FileConnector
    from proxystore.connectors.multi import MultiConnector, Policy

    connector = MultiConnector(
        {
            "small": (FileConnector(str(tmp_path / "a")), Policy(max_size_bytes=1000)),
            "large": (FileConnector(str(tmp_path / "b")), Policy(min_size_bytes=1001)),
        }
    )
    with Store("theirs", connector, populate_target=False) as store:
        check(store, make_peer, deferrable=False)


@pytest.mark.full
def test_zmq_from_several_threads(make_peer):
    pytest.importorskip("proxystore_ex", reason="proxystore-ex is not installed")
    pytest.importorskip("zmq")
    from proxystore_ex.connectors.dim.zmq import ZeroMQConnector

    connector = ZeroMQConnector(free_port(), address="127.0.0.1", timeout=10)
    with Store("theirs", connector, populate_target=False, cache_size=0) as store:
        check(store, make_peer, deferrable=False)
        # The connector has one socket, on which requests of two threads would mix.
        keys = [store.put([number]) for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(store.get, keys)) == [[number] for number in range(40)]


@pytest.mark.full
def test_a_running_endpoint(make_peer, tmp_path, monkeypatch):
    pytest.importorskip("aiortc", reason="proxystore[endpoints] is not installed")
    command = Path(sys.executable).with_name("proxystore-endpoint")
    monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path))
    port = str(free_port())
    configure = [command, "configure", "e", "--port", port, "--host", "127.0.0.1"]
    subprocess.run([*configure, "--no-relay-server"], check=True, timeout=50)
    with (tmp_path / "endpoint.log").open("wb") as log:
        endpoint = subprocess.Popen([command, "start", "--no-detach", "e"], stdout=log, stderr=log)
    try:
        from proxystore.connectors.endpoint import EndpointConnector
        from proxystore.endpoint.config import get_configs

        def connect():
            (config,) = get_configs(str(tmp_path))
            return EndpointConnector([config.uuid], str(tmp_path))

        def answers():
            try:
                connect().close()
            except Exception:
                return endpoint.poll() is not None
            return True

        procfs.wait_until(answers, "the endpoint answers", 40)
        with Store("theirs", connect(), populate_target=False) as store:
            check(store, make_peer)
            again = get_or_create_store(store.config(), register=False)
            assert again.get(store.put([1])) == [1]
    finally:
        endpoint.terminate()
        endpoint.wait(30)


class GlobusTransferStandIn:
    """Copies between directories of this machine: the real service needs an account."""

    def _submit(self, data):
        for item in data["DATA"]:
            if data["DATA_TYPE"] == "transfer":
                shutil.copy(item["source_path"], item["destination_path"])
            elif data.get("recursive"):
                shutil.rmtree(item["path"], ignore_errors=True)
            else:
                os.unlink(item["path"])
        return {"task_id": "task"}

    submit_transfer = submit_delete = _submit

    def task_wait(self, task_id, **_):
        return task_id == "task"

    def get_task(self, task_id):
        return {"task_id": task_id}


def test_globus_as_far_as_it_goes_without_an_account(tmp_path, monkeypatch):
    import socket

    from proxystore.connectors import globus

    monkeypatch.setattr(
        globus, "get_transfer_client", lambda *_, **__: GlobusTransferStandIn(), raising=True
    )
    endpoints = []
    for name, host in (("near", socket.gethostname()), ("far", "far.example")):
        (tmp_path / name).mkdir()
        endpoints.append(
            globus.GlobusEndpoint(
                uuid=f"0000-{name}",
                endpoint_path=str(tmp_path / name),
                local_path=str(tmp_path / name),
                host_regex=host,
            )
        )
    connector = globus.GlobusConnector(globus.GlobusEndpoints(endpoints), clear=False)
    with Store("theirs", connector, populate_target=False) as store:
        key = store.put([1, 2])
        assert os.listdir(tmp_path / "far") == [key.filename]
        assert store.get(key) == [1, 2]
        config = store.config().connector
        assert isinstance(config, ConnectorConfig)
        assert type(config.get_connector()) is type(connector)
        proxy = pickle.loads(pickle.dumps(store.proxy([3])))
        assert proxy == [3]
    from proxystore_hpc import get_store

    get_store("theirs").close()
