"""NumPy arrays as one buffer, without importing NumPy before an array is there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pickle import PickleBuffer
from typing import Any

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import header
from proxystore_hpc.serialize.layout import ORIGIN, Layout, arrange, lay_out_raw

Known = tuple[bytes, int, Any, int, int, "tuple[int, ...] | None", str]
"""header, total length, dtype, number of items, data offset, shape unless it has one axis, order"""

_PLAIN_KINDS = frozenset("biufcSUmM?")
_KNOWN = 1024

_texts: dict[Any, bytes] = {}
_dtypes: dict[bytes, Any] = {}
# Simulations store arrays of few dtypes and shapes over and over: what was worked out for one holds
# for the next. By dtype, shape, order and origin; by the start of a header.
_planned: dict[tuple[Any, tuple[int, ...], int, int], tuple[bytes, int]] = {}
_loaded: dict[bytes, Known] = {}
_numpy: Any = None


def numpy() -> Any:
    """The NumPy module.

    Raises:
        SerializationError: It is not installed.
    """
    global _numpy
    if _numpy is None:
        # Not from sys.modules: another thread may be in the middle of importing it.
        try:
            import numpy as module
        except ImportError as error:
            raise SerializationError(
                "the object is a NumPy array and NumPy is not installed: pip install numpy"
            ) from error
        _numpy = module
    return _numpy


def is_ndarray(cls: type[Any]) -> bool:
    """Whether `cls` is `numpy.ndarray` itself."""
    return cls.__name__ == "ndarray" and cls.__module__ == "numpy"


def is_subclass(cls: type[Any]) -> bool:
    """Whether `cls` is a proper subclass of `numpy.ndarray`."""
    return any(is_ndarray(base) for base in cls.__mro__[1:])


def plain_text(dtype: Any) -> bytes:
    """The text that describes `dtype` fully, or `b""` if no text does."""
    text = _texts.get(dtype)
    # Metadata do not take part in comparisons, so they are looked at each time.
    if text is None:
        text = _find_text(dtype)
        if len(_texts) >= _KNOWN:
            _texts.clear()
        _texts[dtype] = text
    return text if dtype.metadata is None else b""


def _find_text(dtype: Any) -> bytes:
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject or dtype.subdtype is not None:
        return b""
    text = str(dtype.str)
    same = numpy().dtype(text)
    if same != dtype or type(same) is not type(dtype) or len(text) > header.MAX_RAW_NAME:
        return b""
    return text.encode("ascii")


def dtype_of(text: bytes) -> Any:
    """The dtype that `plain_text` described.

    Raises:
        SerializationError: The text names no dtype that can lie in shared memory.
    """
    dtype = _dtypes.get(text)
    if dtype is None:
        try:
            dtype = numpy().dtype(text.decode("ascii"))
        except (TypeError, ValueError, SyntaxError) as error:
            raise SerializationError(f"{text!r} is no NumPy dtype here: {error}") from error
        if dtype.hasobject or dtype.kind not in _PLAIN_KINDS:
            raise SerializationError(f"an array of dtype {text!r} cannot be stored as bytes")
        if len(_dtypes) >= _KNOWN:
            _dtypes.clear()
        _dtypes[text] = dtype
    return dtype


def buffer_of(array: Any) -> memoryview:
    """The memory of a contiguous array, as bytes.

    Datetimes do not export their memory, so they are seen as integers.
    """
    if array.dtype.kind in "mM":
        array = array.view("i8")
    return PickleBuffer(array).raw()


def plan_ndarray(array: Any, origin: int) -> Layout | None:
    """The layout of an array of a plain dtype, `None` if it has to be pickled.

    An array that is not contiguous is copied to a contiguous one first.
    """
    name = plain_text(array.dtype)
    shape = array.shape
    if not name or len(shape) > header.MAX_RAW_NDIM or not array.nbytes:
        return None
    flags = array.flags
    fortran = 0
    if not flags.c_contiguous:
        if flags.f_contiguous:
            fortran = header.FORTRAN
        else:
            array = array.copy("C")
    view = buffer_of(array)
    length = len(view)
    known = (array.dtype, shape, fortran, origin)
    planned = _planned.get(known)
    if planned is None:
        meta = header.SHAPES[len(shape)].pack(*shape)
        planned = lay_out_raw(header.NDARRAY, fortran, name, meta, length, origin)
        if len(_planned) >= _KNOWN:
            _planned.clear()
        _planned[known] = planned
    head, offset = planned
    return Layout("ndarray", offset + length, offset, [(0, head), (offset, view)])


def plan_array(
    dtype: Any, shape: int | Sequence[int], order: str = "C", origin: int = ORIGIN
) -> Layout:
    """The layout of an array that does not exist yet: its only segment is the header.

    The array is then built over the block, at `data_offset`, and needs no copy to be stored.

    Args:
        dtype: Anything that `numpy.dtype` takes, without Python objects in it.
        shape: Shape of the array.
        order: `"C"` or `"F"`.
        origin: Offset in its block, which is page-aligned, of the serialized object.

    Raises:
        SerializationError: The dtype holds Python objects.
    """
    np = numpy()
    dtype = np.dtype(dtype)
    dims = (int(shape),) if hasattr(shape, "__index__") else tuple(int(n) for n in shape)
    if dtype.hasobject:
        raise SerializationError(
            f"an array of dtype {dtype} holds Python objects, which cannot lie in shared memory: "
            "put a normal array of them, which is pickled"
        )
    if dtype.subdtype is not None:
        dtype, inner = dtype.subdtype
        dims += inner
    length = dtype.itemsize
    for extent in dims:
        if extent < 0:
            raise SerializationError(f"an array cannot have the shape {dims}")
        length *= extent
    name = plain_text(dtype)
    if name and length and len(dims) <= header.MAX_RAW_NDIM:
        meta = header.SHAPES[len(dims)].pack(*dims)
        flags = header.FORTRAN if order == "F" else 0
        head, offset = lay_out_raw(header.NDARRAY, flags, name, meta, length, origin)
        return Layout("ndarray", offset + length, offset, [(0, head)])
    return _plan_by_pickle(dtype, dims, order, length, origin)


def _plan_by_pickle(
    dtype: Any, shape: tuple[int, ...], order: str, length: int, origin: int
) -> Layout:
    from proxystore_hpc.serialize.pickling import dump_call

    stream = dump_call(rebuild, dtype, shape, order)
    start = header.HEAD_NBYTES + 16 + len(stream)
    offsets, table, total = arrange([length], start, origin)
    head = header.pack(header.PICKLE, 0, table, b"", stream, total) + stream
    return Layout("pickle", total, offsets[0], [(0, head)])


def rebuild(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    """An array over `buffer`; called by pickle streams."""
    if dtype.itemsize == 0 or 0 in shape:
        return numpy().ndarray(shape, dtype, order=order)
    # Not ndarray(buffer=...): that lets go of the buffer, so a lease could end under the array,
    # and allows to set the array writable.
    return numpy().frombuffer(buffer, dtype).reshape(shape, order=order)


def load_known(view: memoryview) -> Any:
    """An array whose header is, byte for byte, one that `load` validated; `None` for all else."""
    known = _loaded.get(bytes(view[: header.SEAL.size]))
    if known is None:
        return None
    head, total, dtype, count, offset, shape, order = known
    if len(view) < total or view[: len(head)] != head:
        return None
    array = _numpy.frombuffer(view, dtype, count, offset)
    return array if shape is None else array.reshape(shape, order=order)


def load(view: memoryview, parsed: header.Header) -> Any:
    """An array over the memory of its serialized form.

    Raises:
        SerializationError: Shape, dtype and length do not fit each other.
    """
    _, flags, _, name_offset, meta_offset, end, total = parsed
    offset, length = header.extent(view, parsed)
    dtype = dtype_of(bytes(view[name_offset:meta_offset]))
    shape = header.shape_of(view, meta_offset, end)
    fortran = flags & header.FORTRAN
    array = array_over(view, offset, dtype, shape, fortran)
    if array.nbytes != length:
        raise SerializationError("the shape of a stored array does not match its length")
    if len(_loaded) >= _KNOWN:
        _loaded.clear()
    head = bytes(view[:end])
    axes = None if len(shape) == 1 else shape
    order = "F" if fortran else "C"
    _loaded[head[: header.SEAL.size]] = (head, total, dtype, array.size, offset, axes, order)
    return array


def array_over(
    view: memoryview, offset: int, dtype: Any, shape: tuple[int, ...], fortran: int
) -> Any:
    """An array over `view`, from `offset` on."""
    array = numpy().frombuffer(view, dtype, prod(shape), offset)
    if len(shape) == 1:
        return array
    return array.reshape(shape, order="F") if fortran else array.reshape(shape)


def strip(array: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """How to pickle an array with its memory out of band where NumPy itself would copy it.

    Gives a callable and its arguments, or `None` if NumPy's own way is the right one: object
    arrays, and subclasses that say how they are pickled.
    """
    np = numpy()
    cls = type(array)
    if array.dtype.hasobject or (not array.nbytes and cls is np.ndarray):
        return None
    if cls is np.ndarray:
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = array.copy("C")
        order = "C" if array.flags.c_contiguous else "F"
        exported = array.view("i8") if array.dtype.kind in "mM" else array
        return rebuild, (PickleBuffer(exported), array.dtype, array.shape, order)
    if cls is np.ma.MaskedArray and array.baseclass is np.ndarray:
        mask = None if array.mask is np.ma.nomask else array.mask
        return rebuild_masked, (array.data, mask, array._fill_value, array.hardmask)
    defaults = np.ndarray
    if (
        cls.__reduce__ is not defaults.__reduce__
        or cls.__reduce_ex__ is not defaults.__reduce_ex__
        or cls.__setstate__ is not defaults.__setstate__
        or getattr(cls, "__getstate__", None) is not getattr(defaults, "__getstate__", None)
    ):
        return None
    # A memmap's attributes describe its file, which the copy has not.
    state = None if issubclass(cls, np.memmap) else (getattr(array, "__dict__", None) or None)
    return rebuild_subclass, (cls, array.view(np.ndarray), state)


def rebuild_subclass(cls: type[Any], array: Any, state: dict[str, Any] | None) -> Any:
    """An instance of an array subclass over `array`; called by pickle streams."""
    result = array.view(cls)
    if state:
        result.__dict__.update(state)
    return result


def rebuild_masked(data: Any, mask: Any, fill_value: Any, hard: bool) -> Any:
    """A masked array over `data` and `mask`; called by pickle streams."""
    np = numpy()
    result = np.ma.MaskedArray(data, mask=np.ma.nomask if mask is None else mask, copy=False)
    if fill_value is not None:
        result._fill_value = fill_value
    if hard:
        result.harden_mask()
    return result
