"""The asyncio face of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxystore_hpc.key import Key
from proxystore_hpc.store.writing import Writing
from proxystore_hpc.utils.offload import offload


class Awaiting(Writing):
    """Methods for coroutines. They block a thread of a small pool instead of the event loop."""

    async def aget(self, key: Key, **options: Any) -> Any:
        """As `get`, without blocking the event loop; many at once overlap.

        Args:
            key: Its key.
            options: As for `get`.

        Raises:
            As `get`.
        """
        return await offload(self.get, key, **options)

    async def aget_batch(self, keys: Sequence[Key], **options: Any) -> list[Any]:
        """As `get_batch`, without blocking the event loop: for many objects better than `aget`.

        Args:
            keys: Their keys.
            options: As for `get_batch`.

        Raises:
            As `get_batch`.
        """
        return await offload(self.get_batch, keys, **options)

    async def aput(self, obj: Any, **options: Any) -> Key:
        """As `put`, without blocking the event loop. Do not change `obj` meanwhile.

        Args:
            obj: The object.
            options: As for `put`.

        Raises:
            As `put`.
        """
        return await offload(self.put, obj, **options)
