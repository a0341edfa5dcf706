"""What our connectors have in common. Others need not derive from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TypeVar

from proxystore_hpc.connectors.protocols import OnceConnector
from proxystore_hpc.serialize.views import BytesLike

ConnectorT = TypeVar("ConnectorT", bound="ConnectorBase")


def set_once(connector: Any, key: Any, obj: BytesLike) -> bool:
    """Stores bytes under a key of `connector.new_key` if nothing is there; whether it did.

    In one step if it is an `OnceConnector`, else by asking first.
    """
    if isinstance(connector, OnceConnector):
        return connector.set_once(key, obj)
    if connector.exists(key):
        return False
    connector.set(key, obj)
    return True


class ConnectorBase(ABC):
    """A `with` block that closes, and a configuration that is the constructor's arguments."""

    @abstractmethod
    def close(self) -> None:
        """Ends the use of the connector here. Idempotent."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @classmethod
    def from_config(cls: type[ConnectorT], config: dict[str, Any]) -> ConnectorT:
        """A new connector of what `config` gave."""
        return cls(**config)

    def __enter__(self: ConnectorT) -> ConnectorT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
