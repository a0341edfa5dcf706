"""Byte strings in a dictionary of this process."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from proxystore_hpc.connectors.base import ConnectorBase
from proxystore_hpc.serialize.views import BytesLike
from proxystore_hpc.utils.locks import make_rlock


class LocalKey(NamedTuple):
    """Key of a byte string in a `LocalConnector`.

    Attributes:
        id: Unique name.
    """

    id: str


class LocalConnector(ConnectorBase):
    """Keeps byte strings in a dictionary. Nothing reaches another process: it is for tests.

    Thread-safe.

    Args:
        store_dict: The dictionary, a new one if not given.
        include_data_in_config: Let the contents travel with `config`, as they are then.
    """

    def __init__(
        self,
        store_dict: dict[LocalKey, BytesLike] | None = None,
        *,
        include_data_in_config: bool = False,
    ) -> None:
        self._store: dict[LocalKey, BytesLike] = {} if store_dict is None else store_dict
        self._include_data_in_config = include_data_in_config
        self._first = make_rlock()

    def close(self) -> None:
        """Does nothing: the dictionary may be the caller's."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments; the contents only if they were asked for."""
        config: dict[str, Any] = {"include_data_in_config": self._include_data_in_config}
        if self._include_data_in_config:
            config["store_dict"] = self._store
        return config

    def evict(self, key: LocalKey) -> None:
        """Removes what is stored under `key`, if there is something."""
        self._store.pop(key, None)

    def exists(self, key: LocalKey) -> bool:
        """Whether something is stored under `key`."""
        return key in self._store

    def get(self, key: LocalKey) -> BytesLike | None:
        """What is stored under `key`, not copied; `None` if nothing is."""
        return self._store.get(key)

    def get_batch(self, keys: Sequence[LocalKey]) -> list[BytesLike | None]:
        """`get` of several keys."""
        return [self._store.get(key) for key in keys]

    def put(self, obj: BytesLike) -> LocalKey:
        """Stores bytes under a new key. What could change is copied."""
        key = self.new_key()
        self.set(key, obj)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[LocalKey]:
        """`put` of several byte strings."""
        return [self.put(obj) for obj in objs]

    def new_key(self, obj: BytesLike | None = None) -> LocalKey:
        """A key whose bytes are stored later, by `set`."""
        return LocalKey(uuid.uuid4().hex)

    def set(self, key: LocalKey, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`."""
        self._store[key] = obj if type(obj) is bytes else bytes(obj)

    def set_once(self, key: LocalKey, obj: BytesLike) -> bool:
        """As `set`, if nothing is stored there; whether it was stored."""
        with self._first:
            if key in self._store:
                return False
            self.set(key, obj)
        return True
