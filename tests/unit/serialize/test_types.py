"""What is stored comes back with the same type and value."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import uuid

import numpy as np
import pytest

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import deserialize, serialize


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Name(str):
    pass


class Blob(bytes):
    pass


class Sequence(list):
    pass


Point = collections.namedtuple("Point", "x y")


class Quantity(np.ndarray):
    """Has an attribute and says nothing of pickling."""

    def __new__(cls, values, unit=None):
        result = np.asarray(values).view(cls)
        result.unit = unit
        return result

    def __array_finalize__(self, obj):
        self.unit = getattr(obj, "unit", None)


class Careful(np.ndarray):
    """Says itself how it is pickled."""

    def __reduce__(self):
        return _careful, (np.asarray(self).tolist(),)


def _careful(values):
    return np.asarray(values).view(Careful)


PLAIN = [
    None,
    True,
    0,
    -(2**200),
    1.5,
    float("inf"),
    2 - 3j,
    "",
    "text",
    "snow \N{SNOWMAN} \U0001f600",
    "lone \ud800 surrogate",
    b"",
    b"bytes" * 1000,
    bytearray(b"ab"),
    (),
    (1, (2, "3")),
    [],
    [1, [2]],
    {},
    {"a": {1: None}},
    {1, 2},
    frozenset("ab"),
    range(5),
    slice(1, None, 2),
    ...,
    Colour.RED,
    Level.HIGH,
    Access.READ | Access.WRITE,
    Name("n"),
    Blob(b"b"),
    Sequence([1]),
    Point(1, 2),
    collections.OrderedDict(a=1),
    collections.deque([1], maxlen=3),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    pathlib.PurePosixPath("/a/b"),
    uuid.UUID(int=5),
    array.array("d", [1, 2]),
    int,
    np.ndarray,
    len,
]


@pytest.mark.parametrize("obj", PLAIN, ids=lambda obj: f"{type(obj).__name__}-{obj!r:.20}")
def test_plain_objects(obj, through):
    result = through(obj)
    assert type(result) is type(obj)
    assert result == obj
    again = deserialize(serialize(obj))
    assert type(again) is type(obj)
    assert again == obj


def test_an_enum_member_is_the_same_member(through):
    assert through(Colour.RED) is Colour.RED
    assert through([Level.HIGH])[0] is Level.HIGH


SCALARS = [
    np.float64(1.5),
    np.float32(0.1),
    np.int8(-3),
    np.uint64(2**63),
    np.bool_(True),
    np.complex64(1j),
    np.str_("text"),
    np.bytes_(b"text"),
    np.datetime64("2024-02-29T12:00", "ns"),
    np.timedelta64(5, "D"),
    np.void(b"\x01\x02"),
    np.longdouble("0.1"),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
def test_numpy_scalars(scalar, through):
    result = through(scalar)
    assert type(result) is type(scalar)
    assert result.dtype == scalar.dtype
    assert result == scalar


STRUCT = np.dtype({"names": ["a", "b"], "formats": ["<i4", ">f8"], "offsets": [0, 16]})
ALIGNED = np.dtype([("x", "i1"), ("y", "f8"), ("z", "U3", (2,))], align=True)

ARRAYS = {
    "float": np.linspace(0, 1, 7),
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "half": np.arange(3, dtype="f2"),
    "complex": np.arange(4).astype("c16"),
    "longdouble": np.arange(3, dtype=np.longdouble) / 3,
    "bytes": np.array([b"a", b"bcd"]),
    "text": np.array(["a", "\N{SNOWMAN}bc"]),
    "datetime": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
    "datetime-multiple": np.zeros(3, dtype="M8[25us]"),
    "datetime-big-endian": np.arange(3).astype(">M8[s]"),
    "timedelta": np.arange(6).astype("m8[ms]").reshape(2, 3),
    "datetime-fortran": np.asfortranarray(np.arange(6).astype("M8[s]").reshape(2, 3)),
    "datetime-strided": np.arange(6).astype("M8[s]")[::2],
    "void": np.array([b"ab", b"cd"], dtype="V2"),
    "0-d": np.array(3.5),
    "0-d datetime": np.array("2024-01-01", dtype="M8[D]"),
    "empty": np.empty(0),
    "empty 3-d": np.empty((2, 0, 3), dtype="i2"),
    "one": np.ones((1, 1, 1)),
    "C": np.arange(6.0).reshape(2, 3),
    "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(2, 1, 0),
    "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(20.0).reshape(4, 5)[::2, 1::2],
    "negative": np.arange(5.0)[::-1],
    "broadcast": np.broadcast_to(np.arange(3.0), (4, 3)),
    "structured": np.zeros(3, dtype=STRUCT),
    "aligned": np.zeros((2, 2), dtype=ALIGNED),
    "nested": np.zeros(2, dtype=[("p", [("x", "f4"), ("y", "f4")]), ("m", "i2", (2, 2))]),
    "object": np.array([1, "two", None, [3]], dtype=object),
    "object in struct": np.array([(1, "x")], dtype=[("n", "i4"), ("o", "O")]),
    "many dimensions": np.arange(2.0).reshape((1,) * 20 + (2,)),
    "page": np.arange(8192.0),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("nested", [False, True])
def test_arrays(name, nested, through):
    original = ARRAYS[name]
    result = through({"k": [original]})["k"][0] if nested else through(original)
    assert type(result) is np.ndarray
    assert result.dtype == original.dtype
    assert result.dtype.isalignedstruct == original.dtype.isalignedstruct
    assert result.shape == original.shape
    np.testing.assert_array_equal(result, original)
    if original.flags.f_contiguous and not original.flags.c_contiguous:
        assert result.flags.f_contiguous


@pytest.mark.parametrize("writable", [False, True])
def test_every_array_can_be_asked_for_as_writable(writable, through):
    for name in ("float", "Fortran", "0-d", "datetime", "strided"):
        assert through(ARRAYS[name], writable=writable).flags.writeable is writable


def test_a_dtype_keeps_its_metadata(through):
    dtype = np.dtype("f8", metadata={"unit": "m"})
    plain = np.arange(300.0)
    through(plain)
    assert through(plain.astype(dtype)).dtype.metadata == {"unit": "m"}
    assert through(plain).dtype.metadata is None


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("size", [3, 3000])
def test_array_subclasses_keep_their_attributes(size, nested, through):
    original = Quantity(np.arange(float(size)), unit="m/s")
    result = through([original])[0] if nested else through(original)
    assert type(result) is Quantity
    assert result.unit == "m/s"
    np.testing.assert_array_equal(result, original)


def test_array_subclasses_that_pickle_themselves(through):
    result = through(Careful((3,)))
    assert type(result) is Careful


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_matrix_and_records(through):
    matrix = through(np.matrix([[1, 2], [3, 4]]))
    assert type(matrix) is np.matrix
    assert (matrix * matrix).tolist() == [[7, 10], [15, 22]]
    records = np.rec.array([(1, "a"), (2, "b")], dtype=[("n", "i4"), ("s", "U1")])
    result = through(records)
    assert type(result) is np.recarray
    assert result.dtype.type is np.record
    assert result.n.tolist() == [1, 2]
    assert result[1].s == "b"


MASKED = {
    "some": np.ma.masked_equal(np.arange(2000.0), 3),
    "nomask": np.ma.array([1, 2, 3]),
    "all": np.ma.masked_all((2, 3), dtype="i4"),
    "fill": np.ma.array([1.0, 2.0], mask=[0, 1], fill_value=-9.0),
    "hard": np.ma.array([1, 2], mask=[0, 1], hard_mask=True),
    "struct": np.ma.array([(1, 2.0)], mask=[(0, 1)], dtype=[("a", "i4"), ("b", "f8")]),
    "fortran": np.ma.masked_greater(np.asfortranarray(np.arange(6).reshape(2, 3)), 2),
    "strided": np.ma.masked_equal(np.arange(20.0), 4)[::2],
    "object": np.ma.array([1, "a"], mask=[1, 0], dtype=object),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_arrays(name, through):
    original = MASKED[name]
    result = through(original)
    assert type(result) is np.ma.MaskedArray
    assert result.dtype == original.dtype
    assert result.shape == original.shape
    np.testing.assert_array_equal(np.ma.getmaskarray(result), np.ma.getmaskarray(original))
    assert result.tolist() == original.tolist()
    assert result.fill_value == original.fill_value
    assert result.hardmask == original.hardmask or name == "object"


def test_a_masked_array_can_be_changed_when_writable(through):
    original = np.ma.masked_equal(np.arange(2000.0), 3)
    result = through(original, writable=True)
    result[0] = np.ma.masked
    result[3] = 5
    assert result[0] is np.ma.masked
    assert result[3] == 5
    assert original[0] == 0


def test_a_memory_map_is_stored_by_its_contents(tmp_path, through):
    original = np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(1000,))
    original[:] = np.arange(1000)
    result = through(original)
    assert type(result) is np.memmap
    np.testing.assert_array_equal(result, np.arange(1000))


VIEWS = {
    "bytes": memoryview(b"abc"),
    "doubles": memoryview(array.array("d", [1, 2, 3])),
    "2-d": memoryview(bytes(24)).cast("i", (2, 3)),
    "0-d": memoryview(bytes(8)).cast("d", ()),
    "strided": memoryview(b"abcdef")[::2],
    "reversed": memoryview(array.array("i", [1, 2, 3]))[::-1],
    "empty": memoryview(b""),
    "empty doubles": memoryview(array.array("d")),
    "numpy": memoryview(np.arange(6.0).reshape(2, 3)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("nested", [False, True])
def test_memoryviews(name, nested, through):
    original = VIEWS[name]
    result = through([original])[0] if nested else through(original)
    assert type(result) is memoryview
    assert result.shape == original.shape
    assert result.format.lstrip("@") == original.format.lstrip("@")
    assert result.tolist() == original.tolist()


@pytest.mark.parametrize(
    "view",
    [memoryview(np.zeros(2, STRUCT)), memoryview(np.zeros(2, ">f8")), memoryview(np.empty((0, 3)))],
)
def test_memoryviews_that_python_cannot_make_again_are_refused(view, through):
    with pytest.raises(SerializationError, match="memoryview"):
        through(view)


def test_functions_and_local_classes(through):
    base = 5

    class Local:
        def __init__(self, value):
            self.value = value

    assert through(lambda x: x + base)(1) == 6
    result = through([Local(np.arange(2000.0))])[0]
    assert type(result).__name__ == "Local"
    np.testing.assert_array_equal(result.value, np.arange(2000.0))
    assert not result.value.flags.owndata


def test_what_nothing_can_store_is_refused(through):
    with pytest.raises(SerializationError, match=r"generator.*register_serializer"):
        through(x for x in ())


def test_errors_of_a_reduce_method_are_told(through):
    class Broken:
        def __reduce__(self):
            raise ValueError("no way")

    with pytest.raises(SerializationError, match="no way") as caught:
        through(Broken())
    assert isinstance(caught.value.__cause__, ValueError)


def test_data_frames(through):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "f": np.arange(3000.0),
            "i": np.arange(3000),
            "s": ["x"] * 3000,
            "t": pandas.date_range("2024", periods=3000),
            "c": pandas.Categorical(["a", "b", "a"] * 1000),
        }
    )
    pandas.testing.assert_frame_equal(through(frame), frame)
    pandas.testing.assert_series_equal(through(frame["t"]), frame["t"])


def test_shared_parts_stay_shared(through):
    part = np.arange(2000.0)
    result = through([part, part])
    assert result[0] is result[1]
