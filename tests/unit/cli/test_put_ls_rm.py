"""`proxystore-hpc put`, `ls` and `rm`."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proxystore_hpc
from proxystore_hpc import Pinned, Store
from proxystore_hpc.cli import main

KeyFileMaker = Callable[..., str]
CaptureFixture = pytest.CaptureFixture[str]


def stored(store: Store, path: Path) -> Any:
    return store.get(proxystore_hpc.load_key(path))


def test_files_become_objects(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, capsys: CaptureFixture
) -> None:
    there = key_file(1)
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "array.npy", array)
    (tmp_path / "object.pkl").write_bytes(pickle.dumps({"a": [1]}))
    (tmp_path / "bytes.dat").write_bytes(b"some bytes")
    for name in ("array.npy", "object.pkl", "bytes.dat"):
        assert main(["put", str(tmp_path / name), "--to", there]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / f"{name}.key")
    found = stored(store, tmp_path / "array.npy.key")
    assert type(found) is np.ndarray
    assert found.tolist() == array.tolist()
    assert stored(store, tmp_path / "object.pkl.key") == {"a": [1]}
    assert stored(store, tmp_path / "bytes.dat.key") == b"some bytes"


def test_an_object_that_is_put_lies_at_its_owner(
    store: Store, key_file: KeyFileMaker, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(b"x")
    assert main(["put", str(tmp_path / "data"), "--to", key_file(1), "--ttl", "600"]) == 0
    key = proxystore_hpc.load_key(tmp_path / "data.key")
    assert key.owner_id == store.address[:16]


def test_standard_input(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, output = key_file(1), tmp_path / "new.key"
    readable, writable = os.pipe()
    os.write(writable, b"piped")
    os.close(writable)
    with os.fdopen(readable) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        assert main(["put", "-", "--to", there, "-o", str(output)]) == 0
    assert stored(store, output) == b"piped"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["data", "--to", "{there}", "-o", "{there}"], 2, "--force"),
        (["-", "--to", "{there}"], 2, "-o KEYFILE"),
        (["missing", "--to", "{there}"], 1, "missing"),
        (["data", "--to", "nowhere"], 2, "HOST:PORT"),
        (["data", "--to", "127.0.0.1:1"], 2, "PROXYSTORE_HPC_PUT_TOKEN"),
        (["data", "--to", "127.0.0.1:1", "--token-file", "data"], 2, "hexadecimal"),
        (["data", "--to", "{there}", "--token-file", "data"], 2, "hexadecimal"),
        (["data", "--to", "{there}", "--pin", "00"], 2, "--pin"),
        (["data", "--to", "{there}", "--token-file", "/dev/null"], 2, "empty"),
        (["bad.npy", "--to", "{there}"], 2, "no .npy file"),
        (["bad.pkl", "--to", "{there}"], 2, "cannot be unpickled"),
    ],
)
def test_what_cannot_be_put(
    key_file: KeyFileMaker,
    tmp_path: Path,
    capsys: CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    there = key_file(1)
    for name in ("data", "bad.npy", "bad.pkl"):
        Path(name).write_bytes(b"data")
    before = sorted(os.listdir())
    assert main(["put", *(text.format(there=there) for text in arguments)]) == status
    assert words in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def test_ls_tells_what_is_there(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, capsys: CaptureFixture
) -> None:
    files = [
        key_file(np.zeros((3, 4), "f4"), "array.key"),
        key_file({"a": 1}, "dict.key"),
    ]
    assert main(["ls", *files]) == 0
    head, array, mapping = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["FILE", "STATE", "KIND", "TYPE", "SHAPE", "SIZE"]
    owner = proxystore_hpc.load_key(files[0]).owner
    assert array.split() == [files[0], "here", "ndarray", "<f4", "3x4", "48", "B", owner, "cli"]
    assert mapping.split()[1:3] == ["here", "pickle"]


def test_ls_as_json_with_objects_that_are_not_there(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, capsys: CaptureFixture
) -> None:
    here, evicted = key_file(b"here", "here.key"), key_file(b"gone", "gone.key")
    assert main(["rm", evicted]) == 0
    later = str(tmp_path / "later.key")
    store.export(store.new_key(), later)
    with Store("ended") as other:
        other.export(other.put(1), tmp_path / "ended.key")
    (tmp_path / "wrong.key").write_text("wrong")
    files = [here, evicted, later, str(tmp_path / "ended.key"), str(tmp_path / "wrong.key")]
    assert main(["ls", "--json", "--timeout", "5", *files]) == 1
    rows = json.loads(capsys.readouterr().out)
    states = ["here", "evicted", "not stored yet", "owner gone", "unknown"]
    assert [row["state"] for row in rows] == states
    assert rows[0]["kind"] == "bytes"
    assert rows[0]["nbytes"] == 4
    assert all(row["reason"] for row in rows[1:])
    assert main(["ls", "--timeout", "5", *files]) == 1
    assert "wrong.key is no key file" in capsys.readouterr().out


def test_rm_evicts(store: Store, key_file: KeyFileMaker, capsys: CaptureFixture) -> None:
    file = key_file(b"x")
    key = proxystore_hpc.load_key(file)
    assert main(["rm", file]) == 0
    assert not store.exists(key)
    assert main(["rm", file]) == 0
    assert Path(file).exists()


def test_rm_of_pinned_and_wrong_files(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, capsys: CaptureFixture
) -> None:
    pinned = key_file(b"x", "pinned.key", policy=Pinned())
    other = key_file(b"y", "other.key")
    assert main(["rm", pinned, str(tmp_path / "missing.key"), other]) == 1
    said = capsys.readouterr().err
    assert "pinned" in said
    assert "missing.key" in said
    assert store.exists(proxystore_hpc.load_key(pinned))
    assert not store.exists(proxystore_hpc.load_key(other))
    assert main(["rm", "--force", pinned]) == 0
    assert not store.exists(proxystore_hpc.load_key(pinned))


def test_rm_where_the_owner_is_out_of_reach(
    tmp_path: Path, capsys: CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a laptop whose tunnel is down: the object may be there still."""
    with Store("ended", tcp=True) as other:
        other.export(other.put(1), tmp_path / "ended.key")
    monkeypatch.setattr("proxystore_hpc.tcp.pool.loopback_tag", lambda: b"another.")
    assert main(["rm", "--timeout", "10", str(tmp_path / "ended.key")]) == 1
    assert "nobody listens on this machine" in capsys.readouterr().err
    assert main(["ls", "--timeout", "10", str(tmp_path / "ended.key")]) == 1
    assert "owner gone" not in capsys.readouterr().out


def test_rm_where_the_owner_has_ended(tmp_path: Path) -> None:
    with Store("ended") as other:
        other.export(other.put(1), tmp_path / "ended.key")
    assert main(["rm", "--timeout", "5", str(tmp_path / "ended.key")]) == 0
