"""`proxystore-hpc get`: formats, files that exist, what is refused."""

from __future__ import annotations

import io
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as st_np

from proxystore_hpc import Store
from proxystore_hpc.cli import main, npy
from proxystore_hpc.serialize import describe, serialize

KeyFileMaker = Callable[..., str]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(5, dtype="<u2"),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(2000.0)[::2],
        np.float32(1.5),
    ],
    ids=["c", "fortran", "0-d", "dates", "bool", "empty", "structured", "strided", "scalar"],
)
def test_arrays(key_file: KeyFileMaker, tmp_path: Path, array: Any) -> None:
    output = tmp_path / "array.npy"
    assert main(["get", key_file(array), "-o", str(output)]) == 0
    found = np.load(output, allow_pickle=False)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)
    if array.ndim > 1:
        assert found.flags.c_contiguous == array.flags.c_contiguous


@given(st_np.arrays(st_np.scalar_dtypes(), st_np.array_shapes(min_dims=0, max_dims=6, max_side=4)))
def test_the_header_is_numpys(array: Any) -> None:
    info = describe(memoryview(serialize(array)))
    if info.kind != "ndarray":
        return
    header = npy.header(info)
    assert len(header) % 64 == 0
    file = io.BytesIO(header + array.tobytes("F" if info.order == "F" else "C"))
    found = np.lib.format.read_array(file, allow_pickle=False)
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("obj", [b"bytes", bytearray(b"array"), memoryview(b"view"), b""])
def test_bytes(key_file: KeyFileMaker, tmp_path: Path, obj: Any) -> None:
    output = tmp_path / "object.bin"
    assert main(["get", key_file(obj), "-o", str(output)]) == 0
    assert output.read_bytes() == bytes(obj)


@pytest.mark.parametrize("obj", [{"a": [1, 2]}, "text", None, b"bytes", np.arange(3)])
def test_pickles(key_file: KeyFileMaker, tmp_path: Path, obj: Any) -> None:
    output = tmp_path / "object.pkl"
    assert main(["get", key_file(obj), "-o", str(output)]) == 0
    found = pickle.loads(output.read_bytes())
    assert np.array_equal(found, obj) if isinstance(obj, np.ndarray) else found == obj


def test_standard_output(
    key_file: KeyFileMaker, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    array = np.arange(5.0)
    file = key_file(array)
    assert main(["get", file, "-o", "-", "--format", "bin"]) == 0
    assert capfdbinary.readouterr().out == array.tobytes()
    assert main(["get", file, "-o", "-", "--format", "npy"]) == 0
    assert np.load(io.BytesIO(capfdbinary.readouterr().out)).tolist() == array.tolist()


def test_a_file_that_exists_stays_without_force(
    key_file: KeyFileMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "object.bin"
    output.write_bytes(b"old")
    file = key_file(b"new")
    assert main(["get", file, "-o", str(output)]) == 2
    assert output.read_bytes() == b"old"
    assert "--force" in capsys.readouterr().err
    assert main(["get", file, "-o", str(output), "--force"]) == 0
    assert output.read_bytes() == b"new"


def test_the_mode_of_the_file_is_the_usual_one(key_file: KeyFileMaker, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main(["get", key_file(b"x"), "-o", str(tmp_path / "object.bin")]) == 0
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "object.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("obj", "output", "status", "words"),
    [
        ([1], "object.bin", 2, "get it as .pkl"),
        ([1], "object.npy", 2, "no array"),
        (np.array([None]), "object.npy", 2, "get it as .pkl"),
        (b"x", "object.txt", 2, "--format"),
        (b"x", "missing/object.bin", 1, "missing"),
    ],
)
def test_what_cannot_be_written(
    key_file: KeyFileMaker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    obj: Any,
    output: str,
    status: int,
    words: str,
) -> None:
    file = key_file(obj)
    assert main(["get", file, "-o", str(tmp_path / output)]) == status
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["object.key"]


def test_an_object_that_is_gone(
    store: Store, key_file: KeyFileMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = key_file(b"x")
    main(["rm", file])
    assert main(["get", file, "-o", str(tmp_path / "object.bin")]) == 1
    assert "evicted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["object.key"]


@pytest.mark.parametrize("content", [None, "nothing like it"])
def test_what_is_no_key_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "object.key"
    if content is not None:
        file.write_text(content)
    assert main(["get", str(file), "-o", str(tmp_path / "object.bin")]) == 1
    assert "object.key" in capsys.readouterr().err


def reversed_loads(data: bytes) -> Any:
    return pickle.loads(data[::-1])


def test_a_deserializer_of_the_store_is_used(tmp_path: Path) -> None:
    with Store("own", serializer=reversed_dumps, deserializer=reversed_loads) as store:
        store.export(store.put({"a": 1}), tmp_path / "object.key")
        output = tmp_path / "object.pkl"
        assert main(["get", str(tmp_path / "object.key"), "-o", str(output)]) == 0
        assert pickle.loads(output.read_bytes()) == {"a": 1}


def reversed_dumps(obj: Any) -> bytes:
    return pickle.dumps(obj)[::-1]


@pytest.mark.parametrize("command", ["get", "put", "ls", "rm"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"examples:\n  proxystore-hpc {command} " in said
    assert "exit status:" in said
