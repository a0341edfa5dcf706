"""Objects to store, and whether what came back is the same."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES = (0, 1, 1023, 1024, 1025, 65535, 65536, 65537, 1 << 20)
"""In bytes, around the sizes where something else happens."""


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Tagged(np.ndarray):
    """An array with an attribute that has to survive."""

    def __array_finalize__(self, obj: Any) -> None:
        self.tag = getattr(obj, "tag", None)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _tagged, (np.asarray(self), self.tag)


def _tagged(array: Any, tag: str) -> Tagged:
    made = array.view(Tagged)
    made.tag = tag
    return made


def pattern(nbytes: int, seed: int = 0) -> bytes:
    """Bytes that differ from those around them, and from those of other seeds."""
    return ((np.arange(nbytes, dtype="u4") * 7 + seed * 13) % 251).astype("u1").tobytes()


def numbered(number: int, length: int) -> Any:
    """An array that says in every element which one it is."""
    return np.full(length, number, dtype="i8")


def _readonly() -> Any:
    array = np.arange(100.0)
    array.flags.writeable = False
    return array


def _tagged_example() -> Any:
    return _tagged(np.arange(300.0).reshape(3, 100), "a tag")


_STRUCTURED = np.dtype([("position", "f8", (3,)), ("id", "i4"), ("name", "U5")], align=True)

EXAMPLES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "int": lambda: 10**40,
    "float": lambda: float("inf"),
    "text": lambda: "grüße " * 1000,
    "bytes": lambda: pattern(5000),
    "bytearray": lambda: bytearray(pattern(5001)),
    "memoryview": lambda: memoryview(pattern(4000)).cast("i", (10, 100)),
    "array-c": lambda: np.arange(10000.0).reshape(10, 1000),
    "array-f": lambda: np.asfortranarray(np.arange(10000, dtype="i4").reshape(100, 100)),
    "array-strided": lambda: np.arange(10000.0).reshape(100, 100)[::3, ::-2],
    "array-readonly": _readonly,
    "array-0d": lambda: np.array(3.5, dtype="f4"),
    "array-empty": lambda: np.empty((0, 7), dtype="i2"),
    "array-bool": lambda: np.arange(100) % 3 == 0,
    "array-complex": lambda: np.arange(50) * (1 + 2j),
    "array-big-endian": lambda: np.arange(50, dtype=">f8"),
    "array-half": lambda: np.arange(50, dtype="f2"),
    "array-text": lambda: np.array(["a", "bcd", "ü"]),
    "array-structured": lambda: np.ones(40, dtype=_STRUCTURED),
    "array-record": lambda: np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "array-datetime": lambda: np.arange("2020-01", "2021-01", dtype="M8[D]"),
    "array-timedelta": lambda: np.arange(100).astype("m8[us]"),
    "array-object": lambda: np.array([1, "two", [3]], dtype=object),
    "array-subclass": _tagged_example,
    "array-masked": lambda: np.ma.masked_array(
        np.arange(1000.0), mask=np.arange(1000) % 7 == 0, fill_value=-1
    ),
    "matrix": lambda: np.matrix([[1, 2], [3, 4]]),
    "scalar": lambda: np.float32(1.25),
    "scalar-datetime": lambda: np.datetime64("2024-02-29T12:00"),
    "enum": lambda: Colour.BLUE,
    "int-enum": lambda: Level.HIGH,
    "tuple": lambda: (1, None, "x", b"y", (2.5,)),
    "nested": lambda: {
        "small": [1, 2, Colour.RED],
        "big": np.arange(100000.0),
        "bigger": [np.full((300, 400), i, dtype="f4", order="F") for i in range(3)],
        "raw": bytearray(pattern(70000)),
        "same": (lambda x: [x, x])(np.arange(20000)),
    },
}


def difference(got: Any, expected: Any, where: str = "it") -> str | None:
    """What is not the same, `None` if everything is: types, dtypes, shapes, order, bytes."""
    if type(got) is not type(expected):
        return f"{where} is a {type(got).__name__}, not a {type(expected).__name__}"
    if isinstance(expected, dict):
        if list(got) != list(expected):
            return f"{where} has the keys {list(got)}"
        parts = [difference(got[k], expected[k], f"{where}[{k!r}]") for k in expected]
        return next((part for part in parts if part), None)
    if isinstance(expected, (list, tuple)):
        if len(got) != len(expected):
            return f"{where} has {len(got)} items"
        parts = [difference(g, e, f"{where}[{i}]") for i, (g, e) in enumerate(zip(got, expected))]  # noqa: B905
        return next((part for part in parts if part), None)
    if isinstance(expected, np.ndarray):
        return _array_difference(got, expected, where)
    if isinstance(expected, memoryview):
        if (got.format, got.shape) != (expected.format, expected.shape):
            return f"{where} has format {got.format} and shape {got.shape}"
        return None if got.tobytes() == expected.tobytes() else f"{where} has other bytes"
    return None if got == expected else f"{where} is {got!r}"[:200]


def _array_difference(got: Any, expected: Any, where: str) -> str | None:
    if got.dtype != expected.dtype or got.dtype.isalignedstruct != expected.dtype.isalignedstruct:
        return f"{where} has dtype {got.dtype}"
    if got.shape != expected.shape:
        return f"{where} has shape {got.shape}"
    if expected.flags.f_contiguous and not got.flags.f_contiguous:
        return f"{where} lost its Fortran order"
    if isinstance(expected, np.ma.MaskedArray):
        if got.fill_value != expected.fill_value or not (got.mask == expected.mask).all():
            return f"{where} has another mask or fill value"
        got, expected = got.data, expected.data
    if expected.dtype.hasobject:
        return difference(got.tolist(), expected.tolist(), where)
    if getattr(got, "tag", None) != getattr(expected, "tag", None):
        return f"{where} lost its attribute"
    return None if got.tobytes() == expected.tobytes() else f"{where} has other bytes"
