"""Stores whose objects lie where a connector keeps them."""

from __future__ import annotations

from typing import Any, cast

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.base import set_connected_type
from proxystore_hpc.store.config import CACHE_BYTES, TIMEOUT, ConnectorConfig, StoreConfig
from proxystore_hpc.store.connected.sharing import ConnectedSharing
from proxystore_hpc.store.core import DeserializerT, SerializerT

__all__ = ["ConnectedStore"]


class ConnectedStore(ConnectedSharing):
    """Objects that a connector keeps: `Store(name, connector)` makes one.

    Keys are the connector's. A pickled proxy carries the store's configuration, from which a
    process that has no store of its name opens one.

    All methods may be called from any thread. No lock is held while the connector works or an
    object is built, unless the connector is known to serve one thread at a time, or
    `options={"one_at_a_time": True}` says so.

    The cache keeps bytes. Before they are used again, the connector is asked whether the object
    still exists, so an evict is heard everywhere; each `get` makes an object of its own, unless
    `options={"share_cached": True}`.

    Args:
        name: Name of the store.
        connector: The connector, or its `ConnectorConfig`.
        serializer: Makes bytes of an object, instead of the built-in one.
        deserializer: Makes an object of what the connector's `get` returned, which it gets as it
            is.
        cache_size: Most payloads that are kept.
        cache_bytes: Most bytes that they may take.
        metrics: Record what every operation costs, see `metrics`.
        populate_target: New proxies keep the object that they were made of.
        register: Make the store known to `get_store`.
        timeout: Seconds after which waiting for an object gives up. What the connector does has
            the deadlines that the connector gives it.
        options: What few stores need, see `proxystore_hpc.store.options.Options`.
        native: Arguments of stores without a connector, which are refused.

    Raises:
        StoreExistsError: `register` is true and the name is taken.
        ConfigError: An argument cannot be meant, or the connector cannot be made.
    """

    def __init__(
        self,
        name: str,
        connector: Any = None,
        *,
        serializer: SerializerT | None = None,
        deserializer: DeserializerT | None = None,
        cache_size: int = 16,
        cache_bytes: int | str = CACHE_BYTES,
        metrics: bool = False,
        populate_target: bool = True,
        register: bool = False,
        timeout: float = TIMEOUT,
        options: dict[str, Any] | None = None,
        **native: Any,
    ) -> None:
        if connector is None:
            raise ConfigError("connector: a ConnectedStore needs one")
        given = [name for name, value in native.items() if value is not None]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: only a store without a connector has memory and doors; leave "
                "it out"
            )
        described = isinstance(connector, ConnectorConfig)
        config = StoreConfig(
            name,
            connector if described else None,
            serializer=serializer,
            deserializer=deserializer,
            cache_size=cache_size,
            cache_bytes=cast(int, cache_bytes),
            metrics=metrics,
            populate_target=populate_target,
            auto_register=register,
            timeout=timeout,
            options=options or {},
        )
        self._open(config, connector=None if described else connector)


set_connected_type(ConnectedStore)
