"""Types in the signatures of stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from proxystore_hpc.connectors.protocols import Connector
from proxystore_hpc.serialize.views import BytesLike

ConnectorT = TypeVar("ConnectorT", bound=Connector[Any])
"""A connector."""

ConnectorKeyT: TypeAlias = tuple[Any, ...]
"""A key of a connector: a NamedTuple."""

SerializerT: TypeAlias = Callable[[Any], BytesLike]
"""Makes bytes of an object."""

DeserializerT: TypeAlias = Callable[[BytesLike], Any]
"""Makes an object of bytes."""
