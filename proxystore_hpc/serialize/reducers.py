"""How objects of other libraries are pickled so that their memory stays out of the stream.

Their own ways copy all data into the stream (polars, torch), or carry the whole buffers that a
slice lies in (pyarrow). None of these libraries is imported here before it is used.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable
from math import prod
from pickle import PickleBuffer
from typing import Any

from proxystore_hpc.utils.locks import make_lock

Reducer = Callable[[Any], Any]

PROTOCOL = 5
# What a slice may leave out of its buffers before it is worth a copy.
_SPARSE = 2

_lock = make_lock()
_found: dict[str, dict[type[Any], Reducer]] = {}
_table: dict[type[Any], Reducer] = {}
_copyreg_size = -1


def table() -> dict[type[Any], Reducer]:
    """Reducers by exact type, those of `copyreg` included, for `Pickler.dispatch_table`.

    Empty if no library is imported here that needs one.
    """
    for name, types in _LIBRARIES.items():
        if name not in _found and name in sys.modules:
            _look(name, types)
    if not _found:
        return _table
    if len(copyreg.dispatch_table) != _copyreg_size:
        _rebuild()
    return _table


def _look(name: str, types: dict[str, Reducer]) -> None:
    module = sys.modules[name]
    # Another thread may be in the middle of importing it.
    if not all(hasattr(module, attribute) for attribute in types):
        return
    with _lock:
        _found[name] = {getattr(module, attribute): types[attribute] for attribute in types}
    _rebuild()


def _rebuild() -> None:
    global _table, _copyreg_size
    with _lock:
        known: dict[type[Any], Reducer] = dict(copyreg.dispatch_table)
        _copyreg_size = len(known)
        for reducers in _found.values():
            known.update(reducers)
        _table = known


def reduce(obj: Any) -> Any:
    """What the reducer for its type gives, `NotImplemented` if there is none."""
    for reducers in _found.values():
        reducer = reducers.get(type(obj))
        if reducer is not None:
            return reducer(obj)
    return NotImplemented


# polars


def _reduce_frame(frame: Any) -> Any:
    arrow = _to_arrow(frame)
    return frame.__reduce_ex__(PROTOCOL) if arrow is None else (rebuild_frame, (arrow,))


def _reduce_series(series: Any) -> Any:
    arrow = _to_arrow(series.to_frame())
    return series.__reduce_ex__(PROTOCOL) if arrow is None else (rebuild_series, (arrow,))


def _to_arrow(frame: Any) -> Any:
    """The frame as an Arrow table over the same memory.

    `None` if something would get lost, or if most of that memory is not the frame's.
    """
    import polars

    try:
        import pyarrow  # noqa: F401

        arrow = frame.to_arrow(compat_level=polars.CompatLevel.newest())
        again: Any = polars.from_arrow(arrow)
        same = again.schema == frame.schema
    except Exception:  # polars: no pyarrow, Python objects, or a version without these
        return None
    return arrow if same and not _sparse(arrow, frame.estimated_size()) else None


def rebuild_frame(arrow: Any) -> Any:
    """A polars frame over an Arrow table; called by pickle streams."""
    import polars

    return polars.from_arrow(arrow)


def rebuild_series(arrow: Any) -> Any:
    """A polars series over the only column of an Arrow table; called by pickle streams."""
    return rebuild_frame(arrow).to_series(0)


# pyarrow


def _reduce_arrow(data: Any) -> Any:
    if _sparse(data, data.nbytes):
        data = _compact(data)
    return data.__reduce_ex__(PROTOCOL)


def _sparse(data: Any, nbytes: int) -> bool:
    return bool(_SPARSE * nbytes < data.get_total_buffer_size())


def _compact(data: Any) -> Any:
    """A copy of a table or record batch without what its slices leave out."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, data.schema) as writer:
        writer.write(data)
    with pyarrow.ipc.open_stream(sink.getvalue()) as reader:
        if isinstance(data, pyarrow.Table):
            return reader.read_all()
        return reader.read_next_batch()


# torch


def _reduce_tensor(tensor: Any) -> Any:
    import torch

    plain = (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_leaf
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not (tensor.__dict__ or tensor._backward_hooks)
        and tensor.numel()
    )
    if not plain:
        return tensor.__reduce_ex__(PROTOCOL)
    # As bytes, since NumPy has no bfloat16.
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    return rebuild_tensor, (PickleBuffer(data), dtype, shape, tensor.requires_grad)


def rebuild_tensor(
    buffer: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool = False
) -> Any:
    """A tensor over `buffer`, or of a copy if that is read-only; called by pickle streams.

    Tensors know no read-only memory: writing to one that lies in any would end the process.
    """
    import torch

    view = memoryview(buffer)
    if view.readonly:
        view = memoryview(bytearray(view))
    tensor = torch.frombuffer(view, dtype=getattr(torch, dtype), count=prod(shape))
    return tensor.reshape(shape).requires_grad_(requires_grad)


_LIBRARIES: dict[str, dict[str, Reducer]] = {
    "polars": {"DataFrame": _reduce_frame, "Series": _reduce_series},
    "pyarrow": {"Table": _reduce_arrow, "RecordBatch": _reduce_arrow},
    "torch": {"Tensor": _reduce_tensor},
}
