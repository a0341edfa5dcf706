"""Borrowed references as arguments of functions that run elsewhere, and when their scope ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from proxystore_hpc.exceptions import ReferenceNotOwnedError
from proxystore_hpc.store.holding import Hold
from proxystore_hpc.store.ref import RefMutProxy, RefProxy, forget_target

__all__ = ["FutureWithCallback", "mark_refs_out_of_scope", "submit"]

_get = object.__getattribute__


@runtime_checkable
class FutureWithCallback(Protocol):
    """What an executor returns."""

    def add_done_callback(self, callback: Callable[[Any], Any], /) -> Any:
        """Calls `callback(self)` when it is done."""


FutureT = TypeVar("FutureT", bound=FutureWithCallback)


def mark_refs_out_of_scope(*refs: RefProxy[Any] | RefMutProxy[Any]) -> None:
    """Ends borrowed references, also where they are in other processes now.

    Their owners may be dropped, changed and borrowed again. Ending one twice is no error. Waits for
    nobody.

    Args:
        refs: References that were borrowed in this process.

    Raises:
        ReferenceNotOwnedError: One came from another process, which alone can end it.
    """
    for ref in refs:
        hold = _get(ref, "__proxy_hold__")
        owner = _get(ref, "__proxy_owner__")
        if type(hold) is not Hold:
            continue  # it never was one
        if owner is None:
            if not hold.held:
                continue  # it was ended before
            raise ReferenceNotOwnedError(
                "the reference was borrowed in another process, so it is not ended here: drop it"
            )
        hold.release()
        if issubclass(type(ref), RefMutProxy) and not ref.__proxy_resolved__:
            forget_target(owner)  # it may have been changed where the reference went
        object.__setattr__(ref, "__proxy_owner__", None)


def submit(
    submit_func: Callable[..., FutureT],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    register_custom_refs: Iterable[Any] = (),
) -> FutureT:
    """Runs a function elsewhere; references among its arguments end when it is done.

    Without it a reference ends when it is dropped where it went, or that process ends, or, if it
    never got there, after the store's lease.

    Args:
        submit_func: `executor.submit`, or what is like it.
        args: Its positional arguments, the function first.
        kwargs: Its keyword arguments.
        register_custom_refs: References that lie deeper in the arguments.

    Returns:
        What `submit_func` returns.
    """
    keywords = dict(kwargs or {})
    refs = [
        each
        for each in (*register_custom_refs, *args, *keywords.values())
        # By the type: isinstance would resolve other proxies.
        if issubclass(type(each), (RefProxy, RefMutProxy))
    ]
    future = submit_func(*args, **keywords)
    future.add_done_callback(lambda _: mark_refs_out_of_scope(*refs))
    return future
