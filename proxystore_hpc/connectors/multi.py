"""Several connectors, of which each object goes to the one that its policy names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from proxystore_hpc.connectors.base import ConnectorBase, set_once
from proxystore_hpc.connectors.policies import Policy, PolicyDict
from proxystore_hpc.exceptions import MultiConnectorError
from proxystore_hpc.serialize.views import BytesLike
from proxystore_hpc.utils.imports import get_object_path, import_from_path

__all__ = [
    "ConnectorPolicyConfig",
    "MultiConnector",
    "MultiConnectorError",
    "MultiKey",
    "Policy",
    "PolicyDict",
]

ConnectorPolicyConfig = tuple[str, dict[str, Any], PolicyDict]
"""A connector and its policy as plain values: path of its class, its configuration, the policy."""


class MultiKey(NamedTuple):
    """Key of a byte string in a `MultiConnector`.

    Attributes:
        connector_name: Which connector holds it.
        connector_key: Its key there.
    """

    connector_name: str
    connector_key: Any


class _Entry(NamedTuple):
    connector: Any
    policy: Policy


class MultiConnector(ConnectorBase):
    """Hands byte strings on to the first connector, by priority, whose policy takes them.

    Connectors whose policy is for other hosts are *dormant* here: they are not made, but their
    configuration travels on. As thread-safe as its connectors are.

    Args:
        connectors: By name, pairs of a connector and its policy, or what `config` made of them.
        dormant_connectors: By name, what `config` made of connectors to leave alone here.

    Raises:
        MultiConnectorError: A class is not to be had here.
    """

    def __init__(
        self,
        connectors: Mapping[str, tuple[Any, Policy] | ConnectorPolicyConfig],
        dormant_connectors: Mapping[str, ConnectorPolicyConfig] | None = None,
    ) -> None:
        self.connectors: dict[str, _Entry] = {}
        self.dormant_connectors: dict[str, ConnectorPolicyConfig] = dict(dormant_connectors or {})
        for name, entry in connectors.items():
            if len(entry) == 2:
                self.connectors[name] = _Entry(*entry)
                continue
            path, config, policy_dict = entry
            policy = Policy(**policy_dict)
            if policy.is_valid_on_host():
                self.connectors[name] = _Entry(_made(name, path, config), policy)
            else:
                self.dormant_connectors[name] = (path, config, policy_dict)
        self.connectors_by_priority = sorted(
            self.connectors, key=lambda name: self.connectors[name].policy.priority, reverse=True
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.connectors_by_priority)})"

    def close(self) -> None:
        """Closes all connectors; raises the first error when all were."""
        with contextlib.ExitStack() as stack:
            for connector, _ in self.connectors.values():
                stack.callback(connector.close)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, in which connectors are plain values."""
        awake: dict[str, ConnectorPolicyConfig] = {
            name: (get_object_path(type(connector)), connector.config(), policy.as_dict())
            for name, (connector, policy) in self.connectors.items()
        }
        return {"connectors": {**self.dormant_connectors, **awake}}

    def evict(self, key: MultiKey) -> None:
        """Removes what is stored under `key`, if there is something."""
        self._of(key).evict(key.connector_key)

    def exists(self, key: MultiKey) -> bool:
        """Whether something is stored under `key`."""
        return bool(self._of(key).exists(key.connector_key))

    def get(self, key: MultiKey) -> BytesLike | None:
        """What is stored under `key`, `None` if nothing is.

        Raises:
            MultiConnectorError: Its connector is dormant here, or unknown.
        """
        found: BytesLike | None = self._of(key).get(key.connector_key)
        return found

    def get_batch(self, keys: Sequence[MultiKey]) -> list[BytesLike | None]:
        """`get` of several keys; each connector is asked once."""
        places: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            places.setdefault(key.connector_name, []).append(index)
        found: list[BytesLike | None] = [None] * len(keys)
        for indices in places.values():
            theirs = [keys[index].connector_key for index in indices]
            values = self._of(keys[indices[0]]).get_batch(theirs)
            for index, value in zip(indices, values, strict=True):
                found[index] = value
        return found

    def put(
        self,
        obj: BytesLike,
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
    ) -> MultiKey:
        """Stores bytes under a new key.

        Args:
            obj: The bytes.
            subset_tags: Tags that have to be a subset of a policy's.
            superset_tags: Tags that have to be a superset of a policy's.

        Raises:
            MultiConnectorError: No policy takes them.
        """
        name = self._choose(memoryview(obj).nbytes, subset_tags, superset_tags)
        return MultiKey(name, self.connectors[name].connector.put(obj))

    def put_parts(
        self,
        parts: Sequence[bytes | memoryview],
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
    ) -> MultiKey:
        """Stores the parts one after another, as one byte string. See `put`."""
        nbytes = sum(memoryview(part).nbytes for part in parts)
        name = self._choose(nbytes, subset_tags, superset_tags)
        connector = self.connectors[name].connector
        put_parts: Callable[[Any], Any] | None = getattr(connector, "put_parts", None)
        if put_parts is None:
            return MultiKey(name, connector.put(b"".join(parts)))
        return MultiKey(name, put_parts(parts))

    def put_batch(
        self,
        objs: Sequence[BytesLike],
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
    ) -> list[MultiKey]:
        """`put` of several byte strings, which may go to different connectors.

        Each connector is asked once. If one fails, what others stored is evicted.
        """
        subset_tags, superset_tags = list(subset_tags), list(superset_tags)
        places: dict[str, list[int]] = {}
        for index, obj in enumerate(objs):
            name = self._choose(memoryview(obj).nbytes, subset_tags, superset_tags)
            places.setdefault(name, []).append(index)
        keys: dict[int, MultiKey] = {}
        try:
            for name, indices in places.items():
                theirs = self.connectors[name].connector.put_batch([objs[i] for i in indices])
                keys.update(
                    (i, MultiKey(name, key)) for i, key in zip(indices, theirs, strict=True)
                )
        except BaseException:
            for key in keys.values():
                self.evict(key)
            raise
        return [keys[index] for index in range(len(objs))]

    def new_key(
        self,
        obj: BytesLike | None = None,
        subset_tags: Iterable[str] = (),
        superset_tags: Iterable[str] = (),
    ) -> MultiKey:
        """A key whose bytes are stored later, by `set` in any process.

        The connector is the first that can do this and whose policy takes what is known by now.

        Raises:
            MultiConnectorError: There is none.
        """
        nbytes = None if obj is None else memoryview(obj).nbytes
        name = self._choose(nbytes, subset_tags, superset_tags, needs="new_key")
        return MultiKey(name, self.connectors[name].connector.new_key(obj))

    def set(self, key: MultiKey, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`."""
        self._of(key).set(key.connector_key, obj)

    def set_once(self, key: MultiKey, obj: BytesLike) -> bool:
        """As `set`, if nothing is stored there; whether it was stored.

        With a connector that cannot tell, two who do so at the same moment may both succeed.
        """
        return set_once(self._of(key), key.connector_key, obj)

    def _choose(
        self,
        nbytes: int | None,
        subset_tags: Iterable[str],
        superset_tags: Iterable[str],
        needs: str = "put",
    ) -> str:
        subset_tags, superset_tags = list(subset_tags), list(superset_tags)
        for name in self.connectors_by_priority:
            connector, policy = self.connectors[name]
            if hasattr(connector, needs) and policy.is_valid(
                size_bytes=nbytes, subset_tags=subset_tags, superset_tags=superset_tags
            ):
                return name
        raise MultiConnectorError(
            f"no policy takes this object of {nbytes} bytes, subset_tags={subset_tags}, "
            f"superset_tags={superset_tags}: the connectors here are "
            f"{', '.join(self.connectors) or 'none'}, and on other hosts "
            f"{', '.join(self.dormant_connectors) or 'none'}",
            connector=repr(self),
        )

    def _of(self, key: MultiKey) -> Any:
        entry = self.connectors.get(key.connector_name)
        if entry is not None:
            return entry.connector
        if key.connector_name in self.dormant_connectors:
            path, _, policy = self.dormant_connectors[key.connector_name]
            why = f"is dormant here: {path} is for hosts that match {policy['host_pattern']!r}"
        else:
            why = f"is unknown; there are {', '.join(self.connectors) or 'none'}"
        raise MultiConnectorError(
            f"the connector {key.connector_name!r} of the key {why}", connector=repr(self), key=key
        )


def _made(name: str, path: str, config: dict[str, Any]) -> Any:
    try:
        kind = import_from_path(path)
    except ImportError as error:
        raise MultiConnectorError(f"the connector {name!r} cannot be made here: {error}") from error
    return kind.from_config(config)
