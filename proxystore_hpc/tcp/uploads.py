"""Objects on their way to a server: what broke off goes on where it stopped."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable

from proxystore_hpc.exceptions import InvalidArgumentError, OperationTimeoutError, StoreFullError
from proxystore_hpc.tcp.limits import Limits, Staging
from proxystore_hpc.tcp.wire import Put

_LONGEST_TAKE = 30.0
_HANDOVER = 10.0
_MOST_DONE = 1024


class Upload:
    """An object that is being put. Whoever `Uploads.begin` gave it to uses it alone.

    Attributes:
        memory: Where its bytes go.
        received: How many of them are there, from the first one on.
        known: Whether an earlier request has begun it.
        key: Its key, once it is stored.
    """

    def __init__(self, put: Put, interrupt: Callable[[], None]) -> None:
        self.memory = memoryview(b"")
        self.received = 0
        self.known = False
        self.key: bytes | None = None
        self._what = (put.address, put.length, put.ttl_ns, put.flags)
        self._staged = 0
        self._interrupt: Callable[[], None] | None = interrupt
        self._since = 0.0

    @property
    def missing(self) -> memoryview:
        """Where the bytes go that have not come yet."""
        return self.memory[self.received :]

    def note(self, nbytes: int) -> None:
        """So many more bytes have come."""
        self.received += nbytes


class Uploads:
    """The uploads of a server, by the numbers that clients chose. Thread-safe.

    Those that broke off and those that are done are kept for a while, so that a client that asks
    again neither sends again what arrived nor stores an object twice. What broke off makes room for
    who needs its memory.

    Args:
        limits: How long, and how many.
        staging: Where their memory is counted.
    """

    def __init__(self, limits: Limits, staging: Staging) -> None:
        self._limits = limits
        self._staging = staging
        self._uploads: dict[bytes, Upload] = {}  # in the order in which they came to rest
        self._changed = threading.Condition()

    def begin(self, put: Put, interrupt: Callable[[], None]) -> Upload:
        """The upload that a request is about; `end` is to be called for it.

        Args:
            put: The request.
            interrupt: Makes who has the upload let go of it; called when the client, whose
                connection may be gone without a sign, comes again.

        Raises:
            InvalidArgumentError: Another object was begun by this number.
            StoreFullError: There is no memory for it.
            OperationTimeoutError: An earlier request does not let go of it.
        """
        deadline = time.monotonic() + min(put.patience, _HANDOVER)
        with self._changed:
            while (upload := self._uploads.get(put.upload)) is not None:
                if upload._what != (put.address, put.length, put.ttl_ns, put.flags):
                    raise InvalidArgumentError("another object is being put by the same number")
                if upload._interrupt is None:
                    upload._interrupt = interrupt
                    upload.known = True
                    return upload
                upload._interrupt()
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise OperationTimeoutError(
                        "an earlier request still stores this object; try later",
                        timeout=put.patience,
                    )
            upload = self._uploads[put.upload] = Upload(put, interrupt)
        try:
            self._take(put.length, min(put.patience, _LONGEST_TAKE))
            upload._staged = put.length
            upload.memory = memoryview(mmap.mmap(-1, max(put.length, 1)))[: put.length]
        except BaseException:
            self._drop(put.upload, upload)
            raise
        return upload

    def _take(self, nbytes: int, patience: float) -> None:
        while nbytes <= self._limits.staging:
            try:
                self._staging.take(nbytes, 0.0)
                return
            except StoreFullError:
                with self._changed:
                    resting = next(
                        ((n, u) for n, u in self._uploads.items() if u._staged and _rests(u)), None
                    )
                    if resting is None:
                        break
                    self._drop(*resting)
        self._staging.take(nbytes, patience)

    def end(self, number: bytes, upload: Upload, key: bytes | None = None) -> None:
        """Lets go of an upload: it is stored, or broke off and may go on."""
        with self._changed:
            if key is not None:
                upload.key = key
                self._free(upload)
            upload._interrupt = None
            upload._since = time.monotonic()
            self._uploads.pop(number, None)
            self._uploads[number] = upload
            self._changed.notify_all()
            half = [n for n, u in self._uploads.items() if _rests(u) and u.key is None]
            done = [n for n, u in self._uploads.items() if _rests(u) and u.key is not None]
            for one in half[: -self._limits.uploads or None] + done[:-_MOST_DONE]:
                self._drop(one, self._uploads[one])

    def fail(self, number: bytes, upload: Upload) -> None:
        """Forgets an upload that cannot be stored."""
        self._drop(number, upload)

    def tend(self, now: float) -> None:
        """Forgets what has rested for too long. `now` is on the clock of `time.monotonic`."""
        with self._changed:
            for number, upload in list(self._uploads.items()):
                if _rests(upload) and now - upload._since > self._limits.resume:
                    self._drop(number, upload)

    def _drop(self, number: bytes, upload: Upload) -> None:
        with self._changed:
            self._uploads.pop(number, None)
            upload._interrupt = None
            self._free(upload)
            self._changed.notify_all()

    def _free(self, upload: Upload) -> None:
        upload.memory = memoryview(b"")
        staged, upload._staged = upload._staged, 0
        if staged:
            self._staging.give(staged)


def _rests(upload: Upload) -> bool:
    return upload._interrupt is None
