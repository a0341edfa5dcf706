from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import ConfigError, MissingLibraryError
from proxystore_hpc.store import ConnectorConfig, StoreConfig
from proxystore_hpc.utils import config as config_files
from proxystore_hpc.utils.counter import AtomicCounter
from proxystore_hpc.utils.data import bytes_to_readable, chunk_bytes, readable_to_bytes
from proxystore_hpc.utils.environment import home_dir, hostname
from proxystore_hpc.utils.offload import start
from proxystore_hpc.utils.optional import import_optional
from proxystore_hpc.utils.timer import Timer


@given(st.binary(max_size=50), st.integers(1, 60))
def test_pieces_join_to_the_whole(data, size):
    for kind in (bytes, bytearray, memoryview):
        pieces = list(chunk_bytes(kind(data), size))
        assert b"".join(pieces) == data
        assert all(len(piece) == size for piece in pieces[:-1])
        assert all(type(piece) is kind for piece in pieces)


def test_pieces_have_a_length():
    with pytest.raises(ValueError, match="at least one byte"):
        list(chunk_bytes(b"x", 0))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1234567, "1.235 MB"),
        (12 * 10**9, "12 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_sizes_for_people(size, text):
    assert bytes_to_readable(size) == text


def test_sizes_of_people():
    assert readable_to_bytes("1.2 KB") == 1200
    assert readable_to_bytes("0.5MiB") == 512 * 1024
    assert readable_to_bytes("100") == 100
    assert bytes_to_readable(1234, precision=0) == "1 KB"
    for wrong in ("1 XB", "1 K", "", "KB"):
        with pytest.raises(ValueError, match=r"size|unit"):
            readable_to_bytes(wrong)
    with pytest.raises(ValueError, match="negative"):
        bytes_to_readable(-1)


def test_a_counter_gives_each_number_once():
    counter = AtomicCounter(400)
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.extend(counter.increment() for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(400))
    with pytest.raises(ValueError, match="400"):
        counter.increment()


def test_a_timer():
    with Timer() as timer, pytest.raises(RuntimeError):
        _ = timer.elapsed_ns
    assert timer.elapsed_s * 1e3 == pytest.approx(timer.elapsed_ms)
    assert timer.elapsed_ns > 0
    first = timer.elapsed_ns
    assert timer.start().stop() is timer
    assert timer.elapsed_ns != first


def test_configurations_in_files(tmp_path):
    config = StoreConfig("c", ConnectorConfig("file", {"store_dir": "x"}), cache_size=3)
    text = config_files.dumps(config)
    assert config_files.loads(StoreConfig, text) == config
    buffer = io.BytesIO()
    config_files.dump(config, buffer)
    buffer.seek(0)
    assert config_files.load(StoreConfig, buffer) == config
    with pytest.raises(ConfigError, match="None"):
        config_files.dumps(config, exclude_none=False)
    with pytest.raises(ConfigError, match="TOML"):
        config_files.loads(StoreConfig, "name =")
    with pytest.raises(ConfigError, match="nome"):
        config_files.loads(StoreConfig, 'nome = "c"')


def test_where_files_of_the_user_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PROXYSTORE_HOME", str(tmp_path))
    assert home_dir() == str(tmp_path)
    monkeypatch.delenv("PROXYSTORE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home_dir() == str(tmp_path / "proxystore")
    assert hostname()


def test_a_function_runs_in_the_background():
    assert start(sum, [1, 2]).result(20) == 3


def test_a_missing_library_names_its_extra():
    with pytest.raises(MissingLibraryError, match=r"proxystore_hpc\[some\]") as caught:
        import_optional("no_such_library.part", extra="some", purpose="This")
    assert isinstance(caught.value, ImportError)
