"""This package's memory and doors, behind the interface of ProxyStore's connectors."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from proxystore_hpc.connectors.base import ConnectorBase
from proxystore_hpc.exceptions import ConfigError, InvalidArgumentError, StoreClosedError
from proxystore_hpc.key import Key
from proxystore_hpc.serialize import deserialize, plan, zero_copy
from proxystore_hpc.serialize.views import BytesLike
from proxystore_hpc.store.base import Store
from proxystore_hpc.store.opening import load_core
from proxystore_hpc.utils.locks import make_rlock

_PREFIX_NBYTES = 64

# What processes that rebuild a connector need; a port to listen at, say, is the first one's alone.
_FOR_OTHERS = frozenset({"capacity", "doors", "timeout", "keep"})


class HPCKey(NamedTuple):
    """Key of a byte string in an `HPCConnector`.

    Attributes:
        packed: The bytes of a `proxystore_hpc.key.Key`.
    """

    packed: bytes


class HPCConnector(ConnectorBase):
    """Keeps byte strings in registered memory of the process that stored them.

    Made for ProxyStore's own `Store`, which it makes read objects in place if it is given the
    connector's serializers:

        connector = HPCConnector("simulation")
        store = proxystore.store.Store(
            "simulation", connector, serializer=connector.serialize, deserializer=deserialize
        )

    Connectors of one name in a process share their memory; what is stored ends when the last of
    them is closed, or the process, unless `keep=True` has it go to the node's keeper. Thread-safe.

    Args:
        name: Names the memory in this process, and in messages.
        options: Arguments of `proxystore_hpc.Store`: `capacity`, `doors`, `timeout`, `interface`,
            `tcp`, `keep`, ... In other processes only the first three and the last apply.

    Raises:
        ConfigError: Memory of this name is in use in this process with other options.
    """

    def __init__(self, name: str = "hpc", **options: Any) -> None:
        self._memory = _join(name, options)
        self._leave = weakref.finalize(self, self._memory.leave)
        self._leave.atexit = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._memory.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # ProxyStore pickles `serialize`, and so the connector, with every proxy.
        return _rebuilt, (type(self), self.config())

    def close(self) -> None:
        """Ends the use of the connector; the last one of its name takes what it stored along."""
        self._leave()

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor for another process."""
        shared = {k: v for k, v in self._memory.options.items() if k in _FOR_OTHERS}
        return {"name": self._memory.name, **shared}

    @property
    def store(self) -> Store:
        """The store in which the bytes lie. Keys of it are `Key(key.packed)`.

        Raises:
            StoreClosedError: The connector is closed.
        """
        if not self._leave.alive:
            raise StoreClosedError(f"{self!r} is closed")
        return self._memory.store

    def serialize(self, obj: Any) -> memoryview:
        """A serializer that writes objects to where they stay: `put` only publishes its result.

        Memory of a result that is dropped without that is free again.

        Raises:
            SerializationError: The object cannot be serialized.
            StoreFullError: The capacity is reached.
        """
        layout = plan(obj)
        view = memoryview(self.store._instance.allocate(layout.nbytes))
        layout.write_into(view)
        return view

    deserialize = staticmethod(deserialize)
    """The deserializer that belongs to `serialize`: arrays are read-only views of stored memory."""

    def put(self, obj: BytesLike) -> HPCKey:
        """Stores bytes under a new key, copied once unless `serialize` made them.

        Raises:
            StoreFullError: The capacity is reached.
        """
        store = self.store
        block = obj.obj if isinstance(obj, memoryview) else None
        if isinstance(block, load_core().Block) and len(obj) == len(block) and not block.published:
            return HPCKey(block.publish(bytes(obj[:_PREFIX_NBYTES])))
        return HPCKey(store.put(obj, serializer=_as_it_is).packed)

    def put_batch(self, objs: Sequence[BytesLike]) -> list[HPCKey]:
        """`put` of several byte strings; if one fails, none is left."""
        keys: list[HPCKey] = []
        try:
            for obj in objs:
                keys.append(self.put(obj))
        except BaseException:
            self.evict_batch(keys)
            raise
        return keys

    def get(self, key: HPCKey) -> BytesLike | None:
        """What is stored under `key`, as a read-only view of it; `None` if nothing is.

        Raises:
            OwnerGoneError: The process that held it has ended.
        """
        native = Key(key.packed)
        if native.deferred and not self.store.exists(native):
            return None
        found: BytesLike | None = self.store.get(native, deserializer=_as_it_is)
        return found

    def get_batch(self, keys: Sequence[HPCKey]) -> list[BytesLike | None]:
        """`get` of several keys; transfers overlap."""
        natives = [Key(key.packed) for key in keys]
        if any(native.deferred for native in natives):
            return [self.get(key) for key in keys]
        return self.store.get_batch(natives, deserializer=_as_it_is)

    def exists(self, key: HPCKey) -> bool:
        """Whether something is stored under `key`."""
        return self.store.exists(Key(key.packed))

    def exists_batch(self, keys: Sequence[HPCKey]) -> list[bool]:
        """`exists` of several keys, asking each owner once."""
        return self.store.exists_batch([Key(key.packed) for key in keys])

    def evict(self, key: HPCKey) -> None:
        """Removes what is stored under `key`, if there is something. Views of it stay valid."""
        self.store.evict(Key(key.packed))

    def evict_batch(self, keys: Sequence[HPCKey]) -> None:
        """`evict` of several keys, asking each owner once."""
        self.store.evict_batch([Key(key.packed) for key in keys])

    def new_key(self, obj: BytesLike | None = None) -> HPCKey:
        """A key whose bytes are stored later, by `set`."""
        return HPCKey(self.store.new_key().packed)

    def set(self, key: HPCKey, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`. Once.

        Raises:
            InvalidArgumentError: It was set before.
        """
        self.store.set(Key(key.packed), obj, serializer=_as_it_is)

    def set_once(self, key: HPCKey, obj: BytesLike) -> bool:
        """As `set`; whether it was stored, False if something was stored there before."""
        try:
            self.set(key, obj)
        except InvalidArgumentError:
            if self.exists(key):
                return False
            raise
        return True


@zero_copy
def _as_it_is(data: Any) -> Any:
    return data


class _Memory:
    """The store that the connectors of one name in this process share."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self.options = options
        self.users = 0
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed."""
        if self._store is None:
            with _lock:
                if self._store is None:
                    self._store = Store(self.name, **self.options)
        return self._store

    def leave(self) -> None:
        """Ends one connector's use; the last one closes the store."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            if _memories.get(self.name) is self:
                del _memories[self.name]
            store, self._store = self._store, None
        if store is not None:
            store.close()


# Reentrant, as the garbage collector may finalize a connector while it is held.
_lock = make_rlock()
_memories: dict[str, _Memory] = {}
os.register_at_fork(after_in_child=_memories.clear)


def _join(name: str, options: dict[str, Any]) -> _Memory:
    with _lock:
        memory = _memories.get(name)
        if memory is None:
            memory = _memories[name] = _Memory(name, options)
        for option, value in options.items():
            if option not in memory.options or memory.options[option] != value:
                raise ConfigError(
                    f"{option}: an HPCConnector({name!r}) is open in this process with other "
                    "options: use the same ones, or another name"
                )
        memory.users += 1
        return memory


def _rebuilt(kind: type[HPCConnector], config: dict[str, Any]) -> HPCConnector:
    return kind.from_config(config)
