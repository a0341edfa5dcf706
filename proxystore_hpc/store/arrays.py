"""Arrays that lie in registered memory from the start, so that storing them copies nothing."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import InvalidArgumentError, SerializationError
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import Layout, plan_array
from proxystore_hpc.utils.locks import make_lock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from proxystore_hpc._core import Block, Instance

logger = logging.getLogger(__name__)


class _Alone:
    """Stands for an array whose base nothing else refers to."""

    def __init__(self) -> None:
        self.base = object()


def _references(array: Any) -> int:
    base = array.base
    return sys.getrefcount(base)


_ALONE = _references(_Alone())
"""References to an array's base when nothing else views it. Interpreters count local names, and the
arguments of a call, differently."""


class FreshArrays:
    """The arrays that `Store.empty` handed out, until they are stored or dropped. Thread-safe."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._blocks: dict[int, tuple[weakref.ref[Block], int, Key | None]] = {}
        self._lock = make_lock()
        self._said_copied = False

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def empty(
        self, shape: int | Sequence[int], dtype: DTypeLike, order: str
    ) -> NDArray[np.generic]:
        """An array of the given shape over a new block."""
        import numpy as np

        try:
            layout = plan_array(dtype, shape, order)
        except SerializationError as error:
            raise InvalidArgumentError(str(error)) from error
        block = self._instance.allocate(layout.nbytes)
        dtype = np.dtype(dtype)
        nbytes = layout.nbytes - layout.data_offset if layout.data_offset >= 0 else 0
        # The block hangs on this array; the one returned and all views of it hang on this one, so
        # its references tell whether there are views. Not np.frombuffer(): its memoryview would
        # stay writable, and with it every array, after the block is published.
        buffer: Any = block
        whole = np.ndarray(nbytes, "u1", buffer=buffer, offset=max(layout.data_offset, 0))
        array: NDArray[np.generic] = np.ndarray(
            shape, dtype, buffer=whole, order="F" if order == "F" else "C"
        )
        if nbytes:
            address = whole.__array_interface__["data"][0]
            forget = self._blocks.pop
            reference = weakref.ref(block, lambda _: forget(address, None))
            with self._lock:
                self._blocks[address] = (reference, layout.data_offset, None)
        return array

    def seal(self, array: Any, layout: Layout, ttl_ns: int, flags: int) -> Key | None:
        """Stores an array that lies in a block of ours without a copy.

        Returns:
            Its key, or `None` if the array has to be copied: it is not ours, is only a part of its
            block, can still be written through another view, or was stored and evicted.
        """
        address = array.__array_interface__["data"][0]
        entry = self._blocks.get(address)
        if entry is None:
            return None
        reference, data_offset, key = entry
        block = reference()
        if block is None or layout.data_offset != data_offset or layout.nbytes != len(block):
            return None
        if key is not None:
            if self._instance.exists([key.packed], 0.0)[0] is None:
                return key
            with self._lock:
                self._blocks.pop(address, None)
            return None
        if array.base is None or _references(array) > _ALONE:
            self._say_copied()
            return None
        prefix = layout.segments()[0][1]
        with self._lock:
            if block.published:
                return None
            array.flags.writeable = False
            array.base.flags.writeable = False
            key = Key(block.publish(prefix, ttl_ns, flags))
            self._blocks[address] = (reference, data_offset, key)
        return key

    def _say_copied(self) -> None:
        if not self._said_copied:
            self._said_copied = True
            logger.warning(
                "an array from store.empty() is copied when it is stored, because other views of "
                "it are alive through which it could be changed; drop them first"
            )
