"""What a publisher and a subscriber share: a session at a broker."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from proxystore_hpc.exceptions import ProxyStoreHpcError
from proxystore_hpc.rpc import Endpoint, Engine
from proxystore_hpc.stream.broker import Broker
from proxystore_hpc.stream.frames import Mark

logger = logging.getLogger(__name__)


class Connection:
    """A session at a broker.

    Args:
        broker: The broker's engine, as an engine of this process looked it up; or its address, for
            an engine that is made for this session alone.
        provider_id: Which broker of that engine.

    Raises:
        PeerError: The broker cannot be reached.
    """

    def __init__(self, broker: Endpoint | str, provider_id: int) -> None:
        self._own: Engine | None = None
        if isinstance(broker, str):
            self._own = Engine(name="stream")
            try:
                broker = self._own.lookup(broker)
            except BaseException:
                self._own.close()
                raise
        self.session = os.urandom(16)
        self.calls = Broker.handle(broker, provider_id)
        self._attending: Any = None

    def attend(self) -> None:
        """Has the broker watch this process, from the first request of the session on."""
        if self._attending is None:
            # The call lasts as long as the session; its end tells the broker of ours.
            self._attending = self.calls.attend.submit(self.session, timeout=math.inf)

    def leave(self, done: Sequence[Mark] = ()) -> None:
        """Ends the session; a broker that is gone has ended it already.

        Args:
            done: Items that were worked off.
        """
        try:
            if self._attending is not None:
                self.calls.leave(self.session, list(done))
        except ProxyStoreHpcError as error:
            logger.debug("a broker could not be told of the end of a session: %s", error)
        finally:
            if self._own is not None:
                self._own.close()
