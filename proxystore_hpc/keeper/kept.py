"""What is left of an owner that has ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, DoorError
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.opening import load_core, ucx_door

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance

logger = logging.getLogger(__name__)


class Kept:
    """The objects of one ended owner, served under its name by threads of the core.

    Args:
        facts: What the owner's store said of itself.
        estate: What `Line.take_estate` gives.
        room: Bytes that it may take; the largest objects are evicted until it does.

    Attributes:
        shed_objects: How many did not fit.
        shed_bytes: How many bytes they had.
        since: When it was taken over, in seconds since the epoch.
        served: Whether something was left to serve. It may be gone by now: whoever asks for it
            is to be told so.

    Raises:
        ProxyStoreHpcError: It cannot be taken over.
    """

    def __init__(self, facts: dict[str, Any], estate: dict[str, Any], room: int) -> None:
        self._facts = facts
        self.since = time.time()
        self._emptied: float | None = None
        self._instance: Instance = load_core().Instance.adopt(estate)
        try:
            self.shed_objects, self.shed_bytes = self._instance.shed(max(room, 0))
            self.served = self.objects > 0
            if self.served:
                self._open_ucx()
                self._instance.resume()
                self._instance.trim()
        except BaseException:
            self.close()
            raise

    def _open_ucx(self) -> None:
        """Its door to other nodes, if it had one."""
        if not self._facts.get("ucx"):
            return
        try:
            config = StoreConfig(self.store, options={"ucx": self._facts["ucx_options"]})
            self._instance.open_door(ucx_door(config, str(self._facts["host"])))
        except (DoorError, ConfigError) as error:
            logger.warning(
                "objects of %s are served to other nodes by sockets only: %s", self.store, error
            )

    @property
    def store(self) -> str:
        """Name of the store."""
        return str(self._facts.get("store", "?"))

    @property
    def objects(self) -> int:
        """How many objects are left."""
        return self._instance.stats()["objects"]

    @property
    def used(self) -> int:
        """Bytes of memory that they take."""
        return self._instance.stats()["used"]

    def empty_for(self) -> float | None:
        """Seconds since the last object went; `None` while there are some."""
        if self.objects:
            self._emptied = None
            return None
        if self._emptied is None:
            self._emptied = time.monotonic()
        return time.monotonic() - self._emptied

    def describe(self) -> dict[str, Any]:
        """For people who ask what is kept."""
        return {
            "owner": self._instance.owner_id,
            "store": self.store,
            "pid": self._facts.get("pid"),
            "objects": self.objects,
            "bytes": self.used,
            "since": self.since,
        }

    def close(self) -> None:
        """Evicts what is left and ends its service."""
        self._instance.close(clear=True)
