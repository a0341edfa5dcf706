"""What our connectors have in common. Others need not derive from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, TypeVar

ConnectorT = TypeVar("ConnectorT", bound="ConnectorBase")


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
