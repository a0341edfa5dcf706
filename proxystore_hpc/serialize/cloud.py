"""The fall-back for what pickle cannot do: closures, lambdas, local classes, memoryviews."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

import cloudpickle

from proxystore_hpc.serialize.pickling import reduce_known
from proxystore_hpc.serialize.views import contiguous, restore_view


class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle with memoryviews that stay memoryviews and arrays out of band."""

    def reducer_override(self, obj: Any) -> Any:
        """How `obj` is pickled, where it is not cloudpickle's own way."""
        if type(obj) is memoryview:
            flat, shape = contiguous(obj)
            return restore_view, (PickleBuffer(flat), obj.format, shape)
        reduced = reduce_known(obj)
        return super().reducer_override(obj) if reduced is NotImplemented else reduced
