"""NumPy's functions with proxies among their arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from proxystore_hpc.proxy._pure.state import unwrap

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "matmul": operator.matmul,
    "divide": operator.truediv,
    "true_divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "divmod": divmod,
    "power": operator.pow,
    "left_shift": operator.lshift,
    "right_shift": operator.rshift,
    "bitwise_and": operator.and_,
    "bitwise_xor": operator.xor,
    "bitwise_or": operator.or_,
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}


def array_ufunc(self: Any, ufunc: Any, method: str, /, *inputs: Any, **kwargs: Any) -> Any:
    """Calls `ufunc.method` with targets in place of proxies."""
    values = [_unwrap_value(value) for value in inputs]
    kwargs = {name: _unwrap_value(value) for name, value in kwargs.items()}
    if method == "__call__" and len(values) == 2 and not kwargs:
        # `array + proxy` arrives as the ufunc, because numpy does not defer to a type that has
        # `__array_ufunc__`; but it may have to defer to the target (a sparse matrix). So the
        # operator is tried again with the target.
        from numpy import ndarray

        apply = _OPERATORS.get(ufunc.__name__)
        if apply is not None and (isinstance(values[0], ndarray) or isinstance(values[1], ndarray)):
            return apply(*values)
    return getattr(ufunc, method)(*values, **kwargs)


def _unwrap_value(value: Any) -> Any:
    """The proxies of a tuple such as `out=` replaced by their targets; anything else, unwrapped."""
    return tuple(map(unwrap, value)) if type(value) is tuple else unwrap(value)
