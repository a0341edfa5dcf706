"""Whether the threads of a process have to take turns at a connector."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from proxystore_hpc.utils.locks import make_rlock

# They have one socket, or one event loop, for all threads.
_ONE_AT_A_TIME = ("proxystore_ex.connectors.dim.", "proxystore.ex.connectors.dim.")


def turns_of(connector: Any, one_at_a_time: bool | None) -> AbstractContextManager[Any]:
    """A lock if only one thread may use the connector at a time, else nothing.

    Args:
        connector: The connector.
        one_at_a_time: What the user says, `None` to go by what is known of the connector.
    """
    if one_at_a_time is None:
        one_at_a_time = _is_known(connector)
    return make_rlock() if one_at_a_time else nullcontext()


def _is_known(connector: Any) -> bool:
    inner = getattr(connector, "connectors", None)
    if isinstance(inner, dict):
        return any(_is_known(entry[0]) for entry in inner.values() if isinstance(entry, tuple))
    return f"{type(connector).__module__}.".startswith(_ONE_AT_A_TIME)
