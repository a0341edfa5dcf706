from __future__ import annotations

import errno
import os
import threading

import pytest
from support.forking import in_child

from proxystore_hpc.connectors.file import FileConnector, FileKey
from proxystore_hpc.exceptions import ConnectorError, InvalidKeyError


def files(directory):
    return sorted(os.listdir(directory)) if directory.exists() else None


def test_close_deletes_what_this_connector_stored(tmp_path):
    directory = tmp_path / "objects"
    connector = FileConnector(str(directory))
    connector.put(b"x")
    connector.close()
    assert not directory.exists()


def test_close_leaves_what_others_stored(tmp_path):
    directory = tmp_path / "objects"
    mine, other = FileConnector(str(directory)), FileConnector(str(directory))
    key = other.put(b"theirs")
    mine.put(b"mine")
    (directory / "notes.txt").write_text("the user's")
    mine.close()
    assert files(directory) == sorted([key.filename, "notes.txt"])
    assert other.get(key) == b"theirs"
    other.close()
    assert files(directory) == ["notes.txt"]


def test_close_without_clear_leaves_everything(tmp_path):
    connector = FileConnector(str(tmp_path / "a"), clear=False)
    key = connector.put(b"x")
    connector.close()
    assert FileConnector(str(tmp_path / "a")).get(key) == b"x"
    connector.close(clear=True)
    assert not (tmp_path / "a").exists()


def test_a_forked_child_deletes_only_its_own(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    key = connector.put(b"parent's")

    def child():
        theirs = connector.put(b"child's")
        assert theirs != key
        connector.close()
        assert connector.get(theirs) is None

    assert in_child(child) == ("None", 0)
    assert connector.get(key) == b"parent's"


def test_a_directory_that_another_removed_is_made_again(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    FileConnector(str(tmp_path / "a")).close()
    assert not (tmp_path / "a").exists()
    assert connector.get(connector.put(b"x")) == b"x"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    connector = FileConnector(str(tmp_path / "a"))
    write = os.write

    def full_disk(handle, data):
        if len(data) < 600:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:500])

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(ConnectorError, match="No space left") as caught:
        connector.put(b"x" * 1000)
    assert isinstance(caught.value.key, FileKey)
    with pytest.raises(ConnectorError):
        connector.put_batch([b"", b"x" * 1000])
    assert files(tmp_path / "a") == []


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    connector = FileConnector(str(tmp_path / "a"))
    assert connector.get(connector.put(bytes(range(100)))) == bytes(range(100))


def test_fsync_is_done_before_the_name_appears(tmp_path, monkeypatch):
    connector = FileConnector(str(tmp_path / "a"), fsync=True)
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen.append(files(tmp_path / "a")), fsync(handle))
    )
    key = connector.put(b"x")
    # First the file while it has no name yet, then the directory.
    assert [key.filename in names for names in seen] == [False, True]


def test_readers_see_all_of_an_object_or_nothing(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    key = connector.new_key()
    values = [bytes([number]) * 200_000 for number in range(8)]
    done = threading.Event()

    def write():
        for _ in range(10):
            for value in values:
                connector.set(key, value)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not done.is_set():
        found = connector.get(key)
        if found is not None:
            seen.add(found)
    thread.join()
    assert seen <= set(values)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "..", ".hidden", "a\0b"])
def test_keys_do_not_lead_out_of_the_directory(tmp_path, name):
    (tmp_path / "secret").write_text("s")
    connector = FileConnector(str(tmp_path / "a"))
    for use in (connector.get, connector.evict, connector.exists):
        with pytest.raises(InvalidKeyError):
            use(FileKey(name))
    assert (tmp_path / "secret").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectorError, match="cannot be made"):
        FileConnector(str(tmp_path / "file" / "a"))


@pytest.mark.full
def test_more_than_two_gibibytes(tmp_path):
    connector = FileConnector(str(tmp_path / "a"))
    size = (2 << 30) + 4097
    data = memoryview(bytearray(size))
    data[-5:] = b"ending"[-5:]
    key = connector.put(data)
    assert os.path.getsize(tmp_path / "a" / key.filename) == size
    found = connector.get(key)
    assert len(found) == size
    assert found[-5:] == b"nding"
    connector.close()
