"""Byte strings in files of a directory that all processes see."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from proxystore_hpc.connectors.base import ConnectorBase
from proxystore_hpc.connectors.naming import Names
from proxystore_hpc.exceptions import ConnectorError, InvalidKeyError
from proxystore_hpc.serialize.views import BytesLike

_PARTIAL = ".partial"


class FileKey(NamedTuple):
    """Key of a byte string in a `FileConnector`.

    Attributes:
        filename: Name of its file, within the directory.
    """

    filename: str


class FileConnector(ConnectorBase):
    """Keeps each byte string in a file of its own.

    A file appears under its name when it is whole, so readers see all of it or nothing, also on a
    file system shared by nodes. Thread-safe; files are read and written without the GIL.

    Args:
        store_dir: The directory; it is made if it is not there.
        clear: Delete at `close` what this connector stored, and the directory if it is empty then.
            What others stored there, or processes that were forked from this one, stays.
        buffering: Accepted for compatibility. Nothing is buffered.
        fsync: Return from storing only when the bytes will survive a power cut.

    Raises:
        ConnectorError: The directory cannot be made.
    """

    def __init__(
        self, store_dir: str, *, clear: bool = True, buffering: int = -1, fsync: bool = False
    ) -> None:
        self.store_dir = os.path.abspath(store_dir)  # noqa: PTH100 - a str, as users expect
        self.clear = clear
        self.buffering = buffering
        self.fsync = fsync
        self._names = Names()
        with self._failing("cannot be made"):
            Path(self.store_dir).mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store_dir!r})"

    def close(self, clear: bool | None = None) -> None:
        """Deletes what this connector stored, if it was made to. Idempotent.

        Args:
            clear: Overrides the constructor's.
        """
        if not (self.clear if clear is None else clear):
            return
        directory = Path(self.store_dir)
        with contextlib.suppress(FileNotFoundError):
            for entry in directory.iterdir():
                if entry.name.lstrip(".").startswith(self._names.mark):
                    entry.unlink(missing_ok=True)
        # Others may be using it, or the user keeps something there.
        with contextlib.suppress(OSError):
            directory.rmdir()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "store_dir": self.store_dir,
            "clear": self.clear,
            "buffering": self.buffering,
            "fsync": self.fsync,
        }

    def evict(self, key: FileKey) -> None:
        """Deletes the file of `key`, if there is one. Who has it open reads on."""
        with self._failing("cannot be evicted", key), contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(key))  # noqa: PTH108

    def exists(self, key: FileKey) -> bool:
        """Whether something is stored under `key`."""
        with self._failing("cannot be looked for", key):
            return os.path.exists(self._path(key))  # noqa: PTH110

    def get(self, key: FileKey) -> BytesLike | None:
        """What is stored under `key`, read into its place by one copy; `None` if nothing is.

        Raises:
            ConnectorError: The file cannot be read.
        """
        with (
            self._failing("cannot be read", key),
            contextlib.suppress(FileNotFoundError),
            open(self._path(key), "rb", buffering=0) as file,  # noqa: PTH123
        ):
            return file.readall()
        return None

    def get_batch(self, keys: Sequence[FileKey]) -> list[BytesLike | None]:
        """`get` of several keys."""
        return [self.get(key) for key in keys]

    def put(self, obj: BytesLike) -> FileKey:
        """Stores bytes under a new key.

        Raises:
            ConnectorError: They cannot be written; nothing is left of them.
        """
        return self.put_parts([obj if isinstance(obj, bytes) else memoryview(obj)])

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> FileKey:
        """Stores the parts one after another, as one byte string. See `put`."""
        key = self.new_key()
        self._write(key, parts)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[FileKey]:
        """`put` of several byte strings; if one fails, none is left."""
        keys: list[FileKey] = []
        try:
            for obj in objs:
                keys.append(self.put(obj))
        except BaseException:
            for key in keys:
                self.evict(key)
            raise
        return keys

    def new_key(self, obj: BytesLike | None = None) -> FileKey:
        """A key whose bytes are stored later, by `set` in any process."""
        return FileKey(self._names.new())

    def set(self, key: FileKey, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`. What was stored there is replaced in one step."""
        self._write(key, [obj if isinstance(obj, bytes) else memoryview(obj)])

    def set_once(self, key: FileKey, obj: BytesLike) -> bool:
        """As `set`, if nothing is stored there; whether it was stored. Needs hard links."""
        parts = [obj if isinstance(obj, bytes) else memoryview(obj)]
        return self._write(key, parts, replace=False)

    def _write(
        self, key: FileKey, parts: Sequence[bytes | memoryview], *, replace: bool = True
    ) -> bool:
        path = self._path(key)
        partial = os.path.join(self.store_dir, f".{self._names.new()}{_PARTIAL}")  # noqa: PTH118
        with self._failing("cannot be stored", key):
            # Another connector may have found the directory empty and removed it.
            try:
                handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileNotFoundError:
                os.makedirs(self.store_dir, exist_ok=True)  # noqa: PTH103
                handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                try:
                    for part in parts:
                        _write_all(handle, memoryview(part).cast("B"))
                    if self.fsync:
                        os.fsync(handle)
                finally:
                    os.close(handle)
                if replace:
                    os.rename(partial, path)  # noqa: PTH104
                elif not _link(partial, path):
                    return False
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)  # noqa: PTH108
                raise
            if self.fsync:
                self._sync_directory()
        return True

    def _sync_directory(self) -> None:
        handle = os.open(self.store_dir, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _path(self, key: FileKey) -> str:
        name = key.filename
        # Keys come from other processes: none may lead out of the directory.
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise InvalidKeyError(f"{name!r} is no name of a stored file", key=key)
        return os.path.join(self.store_dir, name)  # noqa: PTH118

    @contextlib.contextmanager
    def _failing(self, how: str, key: FileKey | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = self.store_dir if key is None else f"{key.filename} in {self.store_dir}"
            raise ConnectorError(
                f"{what} {how}: {error.strerror or error}", connector=repr(self), key=key
            ) from error


def _link(partial: str, path: str) -> bool:
    """Gives a file its name unless another has that; it loses its old name in any case."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(partial)  # noqa: PTH108
    return True


def _write_all(handle: int, view: memoryview) -> None:
    # The kernel takes less than 2 GiB at once, and may take less for reasons of its own.
    while len(view):
        view = view[os.write(handle, view) :]
