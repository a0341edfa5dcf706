"""What a store with a connector is: its configuration, the connector, its end."""

from __future__ import annotations

from typing import Any, NoReturn

from proxystore_hpc.connectors.protocols import Connector
from proxystore_hpc.exceptions import ConfigError, NoMemoryOfItsOwnError
from proxystore_hpc.serialize import Layout
from proxystore_hpc.store.base import Store
from proxystore_hpc.store.carried import CarriedConfig
from proxystore_hpc.store.config import ConnectorConfig, StoreConfig
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.options import Options
from proxystore_hpc.store.registry import register_store, unregister_store
from proxystore_hpc.store.turns import turns_of

_NATIVE_FIELDS = ("capacity", "doors", "interface", "grace", "tcp", "gateway", "keep")


class ConnectedCore(Store):
    """Opening, configuration and closing; `ConnectedStore` adds what it is for."""

    def _open(self, config: StoreConfig, *, connector: Any = None, **_: Any) -> None:
        self._closed = True
        for name in _NATIVE_FIELDS:
            if getattr(config, name) is not None:
                raise ConfigError(
                    f"{name}: only a store without a connector has this; leave it out"
                )
        self._apply(config)
        if connector is None:
            if config.connector is None:
                raise ConfigError("connector: a ConnectedStore needs one")
            connector = config.connector.get_connector()
        if isinstance(connector, type) or not isinstance(connector, Connector):
            raise ConfigError(
                f"connector: {connector!r} is none; an object with the methods of "
                "proxystore_hpc.connectors.protocols.Connector is needed, such as LocalConnector()"
            )
        options = Options.parse(config.options)
        self.connector: Any = connector
        self._door = type(connector).__name__
        self._share_cached = options.share_cached
        self._turns = turns_of(connector, options.one_at_a_time)
        self._carried: CarriedConfig | None = None
        self._closed = False
        if config.auto_register:
            try:
                register_store(self)
            except BaseException:
                self._closed = True
                raise

    def config(self) -> StoreConfig:
        """What `from_config` needs to make such a store, in any process."""
        config = self._config
        if config.connector is None:
            kind = type(self.connector)
            config.connector = ConnectorConfig(
                f"{kind.__module__}.{kind.__qualname__}", self.connector.config()
            )
        return config

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Ends the store in this process and closes the connector. Idempotent.

        What becomes of the objects is up to the connector.

        Args:
            args: Arguments of the connector's `close`.
            kwargs: Keyword arguments of it.
        """
        if self._closed:
            return
        self._closed = True
        unregister_store(self)
        self.cache.clear()
        with self._turns:
            self.connector.close(*args, **kwargs)

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<Store {self.name!r} over {self.connector!r}{state}>"

    def holds(self, key: Any) -> bool:
        """False: what a connector keeps is in no memory of this process."""
        return False

    # What proxies need.

    def _place(self) -> CarriedConfig:
        if self._carried is None:
            self._carried = CarriedConfig(self.name, self.config(), self)
        return self._carried

    def _factory_of(self, key: Any, evict: bool, deserializer: Any) -> StoreFactory[Any]:
        return StoreFactory(key, self._place(), evict=evict, deserializer=deserializer)

    def _check_key(self, key: Any) -> None:
        """Any connector has keys of its own."""

    def _can_get(self, factory: StoreFactory[Any]) -> bool:
        return factory.carried is not None and factory.store_name == self.name

    # What only a store in this package's own memory can do.

    def _only_native(self, *_: Any, **__: Any) -> NoReturn:
        raise NoMemoryOfItsOwnError(
            f"the store {self.name!r} keeps its objects by a {type(self.connector).__name__}; this "
            "needs a store in memory of its own: Store(name) without a connector"
        )

    address: Any = property(_only_native)
    adopt: Any = _only_native
    describe: Any = _only_native
    empty: Any = _only_native
    export: Any = _only_native
    get_into: Any = _only_native
    register: Any = _only_native
    stats: Any = _only_native


def refuse(**arguments: Any) -> None:
    """Refuses arguments that only a store without a connector can heed."""
    for name, value in arguments.items():
        if value is not None:
            raise NoMemoryOfItsOwnError(
                f"{name}: only a store without a connector can do this; leave it out"
            )


def joined(packed: Any) -> Any:
    """An object as one buffer."""
    return packed.to_bytes() if isinstance(packed, Layout) else packed


def size_of(packed: Any) -> int:
    """Bytes of a layout or buffer."""
    return packed.nbytes if isinstance(packed, (Layout, memoryview)) else len(packed)
