"""The configuration of a store as it travels with proxies, so that any process can open the store.

It is pickled once for a store, and unpickled only where no store of its name is open.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, SerializationError
from proxystore_hpc.serialize import deserialize, serialize
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.utils.locks import make_lock

if TYPE_CHECKING:
    from proxystore_hpc.store.base import Store


class CarriedConfig:
    """Configuration of a store, as an object or as its pickle. Thread-safe.

    Args:
        name: Name of the store.
        config: Its configuration.
        store: The store, if it is in this process.
    """

    __slots__ = ("__weakref__", "_config", "_lock", "_packed", "_store", "name")

    def __init__(self, name: str, config: StoreConfig | bytes, store: Store | None = None) -> None:
        self.name = name
        self._config = None if isinstance(config, bytes) else config
        self._packed = config if isinstance(config, bytes) else None
        self._store = None if store is None else weakref.ref(store)
        self._lock = make_lock()

    def store(self) -> Store | None:
        """The store that it was taken of, if that is here and open."""
        store = None if self._store is None else self._store()
        return None if store is None or store._closed else store

    def config(self) -> StoreConfig:
        """The configuration.

        Raises:
            ConfigError: What it names, such as a serializer, is not to be had in this process.
        """
        if self._config is None:
            assert self._packed is not None
            try:
                fields = deserialize(self._packed)
            except SerializationError as error:
                raise ConfigError(
                    f"the store {self.name!r} cannot be opened in this process: {error}"
                ) from error
            self._config = StoreConfig.from_dict(fields)
        return self._config

    def packed(self) -> bytes:
        """The configuration as bytes, always the same object.

        Raises:
            ConfigError: It holds what cannot be pickled.
        """
        with self._lock:
            if self._packed is None:
                self._packed = _pack(self.config())
            return self._packed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CarriedConfig):
            return NotImplemented
        return self is other or (self.name == other.name and self.config() == other.config())

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return carried_of, (self.name, self.packed())


def carried_of(name: str, packed: bytes) -> CarriedConfig:
    """The configuration that a pickle stands for."""
    return CarriedConfig(name, packed)


carried_of.__module__ = "proxystore_hpc.store"


def _pack(config: StoreConfig) -> bytes:
    fields = config.changed_fields()
    if config.connector is not None:
        fields["connector"] = {"kind": config.connector.kind, "options": config.connector.options}
    try:
        return serialize(fields)
    except SerializationError as error:
        raise ConfigError(
            f"the configuration of the store {config.name!r} cannot be pickled, and so neither can "
            f"its proxies: {error}"
        ) from error
