"""What a store asks of a connector. The protocols are structural: nothing has to derive from them.

A connector keeps byte strings under keys of its own making, each written once. Its keys are
NamedTuples; `type(connector).from_config(connector.config())` gives its equal in another process,
and so does `type(connector)(**connector.config())` if it shall serve ProxyStore's stores, too.

A store calls a connector from any thread, several at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from proxystore_hpc.serialize.views import BytesLike

KeyT = TypeVar("KeyT")
NewKeyT = TypeVar("NewKeyT", covariant=True)
GivenKeyT = TypeVar("GivenKeyT", contravariant=True)


@runtime_checkable
class Connector(Protocol[KeyT]):
    """Keeps byte strings under keys."""

    def close(self) -> None:
        """Ends the use of the connector here. Idempotent."""

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to make its equal in another process."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Connector[Any]:
        """A connector of the configuration."""

    def evict(self, key: KeyT) -> None:
        """Removes what is stored under `key`; nothing happens if that is gone already."""

    def exists(self, key: KeyT) -> bool:
        """Whether something is stored under `key`."""

    def get(self, key: KeyT) -> BytesLike | None:
        """What is stored under `key`, `None` if nothing is. It must not change afterwards."""

    def get_batch(self, keys: Sequence[KeyT]) -> list[BytesLike | None]:
        """`get` of several keys."""

    def put(self, obj: BytesLike) -> KeyT:
        """Stores bytes under a new key. If it fails, nothing is left."""

    def put_batch(self, objs: Sequence[BytesLike]) -> list[KeyT]:
        """`put` of several byte strings. If it fails, nothing is left."""


@runtime_checkable
class DeferrableConnector(Protocol[KeyT]):
    """A connector that gives a key before what it stands for is there; futures need that.

    To be used with [`Connector`][proxystore_hpc.connectors.protocols.Connector], whose methods it
    has besides these.
    """

    def new_key(self, obj: BytesLike | None = None) -> KeyT:
        """A new key, under which nothing is stored.

        Args:
            obj: What will be stored, if that is known, as a hint.
        """

    def set(self, key: KeyT, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`, in any process."""


@runtime_checkable
class OnceConnector(Protocol[GivenKeyT]):
    """A deferrable connector that can tell who was first; futures are safe from races then."""

    def set_once(self, key: GivenKeyT, obj: BytesLike) -> bool:
        """As `set`, if nothing is stored under `key`. In one step, whoever else does so, anywhere.

        Returns:
            Whether it was stored.
        """


@runtime_checkable
class PartsConnector(Protocol[NewKeyT]):
    """A connector that takes an object in parts, which a store need not join then."""

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> NewKeyT:
        """Stores the parts, one after another, as one byte string under a new key."""
