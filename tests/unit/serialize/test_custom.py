"""Serializers of users: registered for a type, or given for one call."""

from __future__ import annotations

import json

import numpy as np
import pytest

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.serialize import (
    deserialize,
    get_serializer,
    is_bytes_like,
    loads,
    loads_with,
    plan,
    plan_with,
    raw_payload,
    register_serializer,
    serialize,
    unregister_serializer,
    zero_copy,
)


class Mesh:
    def __init__(self, points, cells):
        self.points = points
        self.cells = cells


class FineMesh(Mesh):
    pass


def _parts(mesh):
    return [mesh.points, mesh.cells]


def _mesh(buffers):
    points, cells = buffers
    return Mesh(np.frombuffer(points).reshape(-1, 3), np.frombuffer(cells, "i4"))


@pytest.fixture
def registered():
    register_serializer("test.mesh", Mesh, _parts, _mesh)
    yield
    unregister_serializer("test.mesh")


@pytest.fixture
def mesh():
    return Mesh(np.arange(9000.0).reshape(-1, 3), np.arange(10, dtype="i4"))


@pytest.mark.usefixtures("registered")
def test_a_registered_serializer_copies_nothing(mesh, store):
    layout = plan(mesh)
    assert layout.kind == "custom"
    view = store(mesh)
    result = loads(view)
    np.testing.assert_array_equal(result.points, mesh.points)
    np.testing.assert_array_equal(result.cells, mesh.cells)
    assert not result.points.flags.writeable
    assert np.shares_memory(result.points, np.frombuffer(view, "u1"))
    assert loads(view, writable=True).points.flags.writeable


@pytest.mark.usefixtures("registered")
def test_subclasses_and_parts_are_pickled(mesh, through):
    fine = through(FineMesh(mesh.points, mesh.cells))
    assert type(fine) is FineMesh
    assert type(through([mesh])[0]) is Mesh
    assert plan([mesh]).kind == "pickle"


def test_an_unknown_name_says_how_to_register(mesh):
    register_serializer("test.mesh", Mesh, _parts, _mesh)
    data = serialize(mesh)
    unregister_serializer("test.mesh")
    with pytest.raises(SerializationError, match=r"register_serializer\('test.mesh'"):
        deserialize(data)
    with pytest.raises(SerializationError, match=r"test\.mesh"):
        get_serializer("test.mesh")
    with pytest.raises(InvalidArgumentError, match=r"test\.mesh"):
        unregister_serializer("test.mesh")


@pytest.mark.usefixtures("registered")
def test_names_and_types_are_registered_once():
    entry = get_serializer("test.mesh")
    assert (entry.name, entry.type) == ("test.mesh", Mesh)
    with pytest.raises(InvalidArgumentError, match="registered already"):
        register_serializer("test.mesh", FineMesh, _parts, _mesh)
    with pytest.raises(InvalidArgumentError, match="has a serializer already"):
        register_serializer("test.other", Mesh, _parts, _mesh)


@pytest.mark.parametrize("kind", [bytes, str, list, np.ndarray])
def test_built_in_types_are_refused(kind):
    with pytest.raises(InvalidArgumentError, match="cannot be changed"):
        register_serializer("test.built-in", kind, bytes, bytes)


@pytest.mark.parametrize("name", ["", "x" * 256, "\N{SNOWMAN}" * 100])
def test_names_have_a_length(name):
    with pytest.raises(InvalidArgumentError, match="1 to 255 bytes"):
        register_serializer(name, Mesh, _parts, _mesh)


@pytest.mark.parametrize(
    ("serializer", "told"),
    [
        (lambda mesh: 1 / 0, "ZeroDivisionError"),
        (lambda mesh: 5, "not a contiguous buffer"),
        (lambda mesh: np.zeros((4, 4))[:, 0], "not a contiguous buffer"),
    ],
)
def test_a_serializer_that_fails(serializer, told, mesh):
    register_serializer("test.failing", Mesh, serializer, _mesh)
    try:
        with pytest.raises(SerializationError, match=told):
            plan(mesh)
    finally:
        unregister_serializer("test.failing")


def test_a_registered_deserializer_that_fails(mesh):
    register_serializer("test.failing", Mesh, _parts, lambda buffers: 1 / 0)
    try:
        with pytest.raises(SerializationError, match="ZeroDivisionError"):
            loads(serialize(mesh))
    finally:
        unregister_serializer("test.failing")


def test_one_buffer_and_none(mesh, through):
    register_serializer("test.one", Mesh, lambda m: b"abc", lambda buffers: bytes(buffers[0]))
    try:
        assert through(mesh) == b"abc"
    finally:
        unregister_serializer("test.one")
    register_serializer("test.none", Mesh, lambda m: [], len)
    try:
        assert through(mesh) == 0
    finally:
        unregister_serializer("test.none")


def test_a_serializer_for_one_call():
    layout = plan_with(lambda obj: json.dumps(obj).encode(), {"a": 1})
    data = layout.to_bytes()
    assert loads_with(json.loads, data) == {"a": 1}
    assert bytes(raw_payload(data)) == b'{"a": 1}'
    with pytest.raises(SerializationError, match="matching deserializer"):
        loads(data)


def test_the_buffer_of_a_call_is_not_copied():
    array = np.arange(5000.0)
    layout = plan_with(lambda obj: memoryview(obj), array)
    assert np.shares_memory(np.frombuffer(layout.segments()[1][1], "u1"), array)

    @zero_copy
    def over(view):
        assert isinstance(view, memoryview)
        return np.frombuffer(view)

    block = bytearray(layout.to_bytes())
    result = loads_with(over, block)
    assert not result.flags.writeable
    assert np.shares_memory(result, np.frombuffer(block, "u1"))
    assert loads_with(over, block, writable=True).flags.writeable


def test_the_default_pair_for_one_call():
    data = plan_with(serialize, [1, 2]).to_bytes()
    assert loads_with(deserialize, data) == [1, 2]
    assert loads(data) == [1, 2]
    assert loads_with(deserialize, serialize([1, 2])) == [1, 2]


@pytest.mark.parametrize("wrong", ["text", 5, None, [b"x"]])
def test_the_result_of_a_serializer_must_be_bytes_like(wrong):
    with pytest.raises(TypeError, match="must return bytes"):
        plan_with(lambda obj: wrong, 1)


def test_errors_of_a_serializer_for_one_call_are_passed_on():
    with pytest.raises(ZeroDivisionError):
        plan_with(lambda obj: 1 / 0, 1)


def test_errors_of_a_deserializer_are_wrapped():
    data = plan_with(lambda obj: obj, b"x").to_bytes()
    with pytest.raises(SerializationError, match="ZeroDivisionError") as caught:
        loads_with(lambda data: 1 / 0, data)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [(b"", True), (bytearray(), True), (memoryview(b""), True), ("", False), (np.zeros(1), False)],
)
def test_is_bytes_like(obj, expected):
    assert is_bytes_like(obj) is expected
