"""Factories: callables that return the target of a proxy.

Any callable without arguments will do. These classes are for deriving from, and for the simple
cases. A factory travels whenever its proxy is pickled, so it should hold what leads to the object
(a key, a path) and not the object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Factory(ABC, Generic[T]):
    """A factory with a name for what it does: override `resolve`."""

    def __call__(self) -> T:
        """The same as `resolve()`."""
        return self.resolve()

    @abstractmethod
    def resolve(self) -> T:
        """The object. What this raises reaches the user as the cause of a ProxyResolveError."""


class SimpleFactory(Factory[T]):
    """Returns an object that it holds.

    Args:
        obj: The object; pickled with the factory.
    """

    def __init__(self, obj: T) -> None:
        self._obj = obj

    def resolve(self) -> T:
        """The object."""
        return self._obj


class LambdaFactory(Factory[T]):
    """Calls a function with arguments that it holds.

    Args:
        target: Function, class or other callable.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    def __init__(self, target: Callable[..., T], *args: Any, **kwargs: Any) -> None:
        self._target = target
        self._args = args
        self._kwargs = kwargs

    def resolve(self) -> T:
        """What the function returns."""
        return self._target(*self._args, **self._kwargs)
