"""A peer that can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from proxystore_hpc import _core
    from proxystore_hpc.rpc.engine import Engine
    from proxystore_hpc.rpc.functions import BoundCall


class Endpoint:
    """Another engine, as `Engine.lookup` found it. Equal to others of the same address.

    It stays good when its connection is lost: the next call connects again, unless the peer was
    restarted.
    """

    __slots__ = ("_address", "_bound", "_core", "_engine")

    def __init__(self, engine: Engine, core: _core.Endpoint) -> None:
        self._engine = engine
        self._core = core
        self._address = core.address
        self._bound: dict[tuple[str, int], BoundCall] = {}

    @property
    def address(self) -> str:
        """What `lookup` takes, in any process."""
        return self._address

    @property
    def engine(self) -> Engine:
        """The engine that it belongs to."""
        return self._engine

    @property
    def name(self) -> str:
        """Name that the peer's engine was given."""
        return self._core.name

    @property
    def on_node(self) -> bool:
        """Whether the peer is on this node."""
        return self._core.on_node

    @property
    def alive(self) -> bool:
        """Whether the connection is whole, as far as one can know without asking."""
        return self._core.alive

    @property
    def lanes(self) -> str:
        """What messages go through: `"ring/memory"`, or UCX's transports in its words."""
        return self._core.lanes

    def call(
        self,
        name: str,
        /,
        *args: Any,
        provider_id: int = 0,
        timeout: float | None = None,
        **kw: Any,
    ) -> Any:
        """Calls a procedure by name. In a loop, keep `engine.rpc(name).on(endpoint)` instead.

        Raises:
            Exception: As `BoundCall.__call__`.
        """
        bound = self._bound.get((name, provider_id))
        if bound is None:
            bound = self._engine.rpc(name).on(self, provider_id)
            self._bound[name, provider_id] = bound
        return bound(*args, timeout=timeout, **kw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and other._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __str__(self) -> str:
        return self._address

    def __repr__(self) -> str:
        return f"<Endpoint {self._address}>"

    def __reduce__(self) -> Any:
        raise TypeError("an endpoint belongs to its engine: send its address, and look that up")


def check_provider(provider_id: int) -> int:
    """The provider id.

    Raises:
        InvalidArgumentError: It is none.
    """
    if isinstance(provider_id, bool) or not isinstance(provider_id, int):
        raise InvalidArgumentError(f"a provider id is an integer, not {provider_id!r}")
    if not 0 <= provider_id <= 0xFFFF:
        raise InvalidArgumentError(f"provider ids go from 0 to 65535: {provider_id}")
    return provider_id
