"""Classes whose methods can be called remotely, several instances told apart by provider id."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from proxystore_hpc.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from proxystore_hpc.rpc.endpoint import Endpoint

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_MARK = "__rpc__"


class _Marked(NamedTuple):
    name: str | None
    options: dict[str, Any]


@overload
def rpc(function: FunctionT, /) -> FunctionT: ...
@overload
def rpc(
    name: str | None = None,
    /,
    *,
    pool: str = ...,
    one_way: bool = ...,
    codec: str = ...,
) -> Callable[[FunctionT], FunctionT]: ...
def rpc(
    function: Any = None,
    /,
    *,
    pool: str = "default",
    one_way: bool = False,
    codec: str = "pickle",
) -> Any:
    """Marks a method of a provider as a procedure: `@rpc`, `@rpc("name")`, `@rpc(pool="io")`.

    Without a name it is called `"Class.method"`. The other arguments are those of
    `Engine.register`.
    """
    options = {"pool": pool, "one_way": one_way, "codec": codec}
    if callable(function):
        setattr(function, _MARK, _Marked(None, options))
        return function
    if function is not None and not isinstance(function, str):
        raise InvalidArgumentError(f"rpc: a name is a text, not {function!r}")

    def mark(method: FunctionT) -> FunctionT:
        setattr(method, _MARK, _Marked(function, options))
        return method

    return mark


class Provider:
    """Base of classes with `@rpc` methods.

    `engine.register_provider(MyProvider(...), 3)` serves an instance;
    `MyProvider.handle(endpoint, 3)` calls it from elsewhere.

    Args:
        service: Prefix of the names of its procedures, given with the class
            (`class KV(Provider, service="kv")`); the class's own name if not given there or by a
            base.
    """

    _service: str | None = None

    def __init_subclass__(cls, *, service: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if service is not None:
            cls._service = service

    @classmethod
    def handle(cls, endpoint: Endpoint, provider_id: int = 0) -> ProviderHandle:
        """The provider of this class at a peer: its `@rpc` methods as bound calls."""
        return ProviderHandle(cls, endpoint, provider_id)


class ProviderHandle:
    """A provider at a peer. Its attributes are bound calls, named as the methods of its class."""

    def __init__(self, cls: type[Any], endpoint: Endpoint, provider_id: int) -> None:
        self._described = f"{service_of(cls)}[{provider_id}] on {endpoint}"
        engine = endpoint.engine
        for attribute, name, options in procedures_of(cls):
            kept = {key: options[key] for key in ("one_way", "codec")}
            setattr(self, attribute, engine.rpc(name, **kept).on(endpoint, provider_id))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        return f"<handle of {self._described}>"


def service_of(cls: type[Any]) -> str:
    """Prefix of the names of a provider's procedures."""
    return getattr(cls, "_service", None) or cls.__name__


def procedures_of(cls: type[Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Attribute, name and options of the procedures of a class.

    Raises:
        InvalidArgumentError: It has none.
    """
    found: dict[str, _Marked] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            mark = getattr(value, _MARK, None)
            if isinstance(mark, _Marked):
                found[attribute] = mark
    if not found:
        raise InvalidArgumentError(f"{cls.__name__} has no method that is marked by @rpc")
    prefix = service_of(cls)
    return [
        (attribute, mark.name or f"{prefix}.{attribute}", mark.options)
        for attribute, mark in found.items()
    ]
