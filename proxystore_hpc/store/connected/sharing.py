"""Objects of connectors that live for their references, or for a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from proxystore_hpc.store.connected.expiry import Expiry
from proxystore_hpc.store.connected.references import References
from proxystore_hpc.store.connected.results import ConnectedResults
from proxystore_hpc.store.core import SerializerT
from proxystore_hpc.store.holding import Mode


class ConnectedSharing(ConnectedResults):
    """References and leases of a store with a connector. This process keeps count and time."""

    def _open(self, *args: Any, **options: Any) -> None:
        self._references = References(self.evict_batch)
        self._expiry = Expiry(self.evict_batch)
        super()._open(*args, **options)

    def close(self, *args: Any, **kwargs: Any) -> None:
        """Ends the store in this process and closes the connector. Idempotent.

        Objects that an `OwnedProxy` in this process owns are evicted. What becomes of the others is
        up to the connector.

        Args:
            args: Arguments of the connector's `close`.
            kwargs: Keyword arguments of it.
        """
        if not self._closed:
            self._expiry.clear()
            self._references.close()
        super().close(*args, **kwargs)

    def extend_batch(
        self, keys: Sequence[Any], seconds: float | None, *, timeout: float | None = None
    ) -> None:
        """Lets objects live for so many seconds from now on; then this process evicts them.

        They live on if it ends before.

        Args:
            keys: Their keys.
            seconds: Seconds, less than before or more; `None` for ever.
            timeout: Without effect.
        """
        self._check_open()
        self._expiry.set(keys, seconds)

    def _hold(self, key: Any, number: int, mode: Mode, *, fresh: bool, lease: float = 0.0) -> None:
        self._check_open()
        if not lease and not self.exists(key):
            raise self._missing(key)
        self._references.hold(key, number, mode, fresh=fresh, lease=lease)

    @property
    def _releaser(self) -> Callable[[Any, int], None]:
        return self._references.release

    def _update(self, key: Any, obj: Any, number: int, serializer: SerializerT | None) -> Any:
        self._references.check_update(key, number)
        self.set(key, obj, serializer=serializer)
        return key

    def _copy_of(self, key: Any) -> Any:
        self._check_open()
        with self._turns:
            data = self.connector.get(key)
            if data is not None:
                return self.connector.put(data)
        raise self._missing(key)
