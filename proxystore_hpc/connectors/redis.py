"""Byte strings in a Redis server."""

from __future__ import annotations

import contextlib
import inspect
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from proxystore_hpc.connectors.base import ConnectorBase
from proxystore_hpc.connectors.naming import Names
from proxystore_hpc.exceptions import ConfigError, ConnectorError
from proxystore_hpc.serialize.views import BytesLike
from proxystore_hpc.utils.optional import import_optional

CHUNK_SIZE = 256 << 20
"""Longer values are stored in pieces of this many bytes; Redis takes 512 MiB at most."""

BATCH_SIZE = 64 << 20
"""Bytes that one command of a batch carries at most, so that others are served in between."""

_READ_SIZE = 1 << 20
_MAX_CHUNK = 512 << 20
# In the place of a value that lies in pieces: their name, how many they are, how long together.
_MARK = b"\x93pshpc-chunks\x00"
_CHUNKED = struct.Struct(f"<{len(_MARK)}s16sQQ")


class RedisKey(NamedTuple):
    """Key of a byte string in a `RedisConnector`.

    Attributes:
        redis_key: Its key in the server.
    """

    redis_key: str


class RedisConnector(ConnectorBase):
    """Keeps byte strings in a Redis server (or one that speaks its protocol), of any length.

    Thread-safe: each thread that waits has a connection of its own.

    Args:
        hostname: Host of the server.
        port: Its TCP port.
        clear: Delete at `close` what this connector stored. What others stored stays.
        username: User of the server's access lists.
        password: Its password. It travels in pickled proxies: `password_env` does not.
        password_env: Environment variable with the password, in every process that connects.
        db: Number of the database.
        unix_socket_path: Path of a unix socket to connect to instead.
        ssl: Talk TLS, and check the server's certificate.
        ssl_ca_certs: File of the authorities to trust, the system's if not given.
        ssl_certfile: File of our certificate, if the server wants one.
        ssl_keyfile: File of its private key.
        ssl_check_hostname: The certificate has to name the host.
        timeout: Seconds that the server may take to answer; `None` waits for ever.
        chunk_size: Longest value in bytes that is not stored in pieces.

    Raises:
        MissingLibraryError: The redis library is not installed.
        ConfigError: An argument cannot be meant.
    """

    def __init__(
        self,
        hostname: str = "localhost",
        port: int = 6379,
        clear: bool = False,
        *,
        username: str | None = None,
        password: str | None = None,
        password_env: str | None = None,
        db: int = 0,
        unix_socket_path: str | None = None,
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = True,
        timeout: float | None = 60.0,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        if not 1 <= chunk_size <= _MAX_CHUNK:
            raise ConfigError(f"chunk_size: 1 to {_MAX_CHUNK} bytes are needed, not {chunk_size}")
        if ssl and unix_socket_path is not None:
            raise ConfigError(
                "ssl: a unix socket does not leave the machine; leave one of them out"
            )
        self.hostname = hostname
        self.port = port
        self.clear = clear
        self._options = {
            "username": username,
            "password": password,
            "password_env": password_env,
            "db": db,
            "unix_socket_path": unix_socket_path,
            "ssl": ssl,
            "ssl_ca_certs": ssl_ca_certs,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_check_hostname": ssl_check_hostname,
            "timeout": timeout,
            "chunk_size": chunk_size,
        }
        self._chunk_size = chunk_size
        self._names = Names()
        self._closed = False
        self._redis = import_optional("redis", extra="redis", purpose="RedisConnector")
        self._redis_client = self._connect()

    def _connect(self) -> Any:
        given: dict[str, Any] = self._options
        password = given["password"]
        if password is None and given["password_env"] is not None:
            password = os.environ.get(given["password_env"])
            if password is None:
                raise ConfigError(
                    f"password_env: there is no {given['password_env']!r} in the environment of "
                    "this process"
                )
        arguments: dict[str, Any] = {
            "db": given["db"],
            "username": given["username"],
            "password": password,
            "socket_timeout": given["timeout"],
            "socket_connect_timeout": given["timeout"],
            # The default, 64 KiB, makes values of a megabyte take twice as long.
            "socket_read_size": _READ_SIZE,
        }
        if given["unix_socket_path"] is not None:
            arguments["unix_socket_path"] = given["unix_socket_path"]
        else:
            arguments.update(host=self.hostname, port=self.port)
        if given["ssl"]:
            arguments.update(
                ssl=True,
                ssl_cert_reqs="required",
                **{
                    name: given[name]
                    for name in (
                        "ssl_ca_certs",
                        "ssl_certfile",
                        "ssl_keyfile",
                        "ssl_check_hostname",
                    )
                },
            )
        return self._redis.Redis(**arguments)

    def __repr__(self) -> str:
        where = self._options["unix_socket_path"] or f"{self.hostname}:{self.port}"
        return f"{type(self).__name__}({where!r})"

    def close(self, clear: bool | None = None) -> None:
        """Closes the connections, after deleting what this connector stored if it was made to.

        Args:
            clear: Overrides the constructor's.

        Raises:
            ConnectorError: The server did not answer, so something may be left.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self.clear if clear is None else clear:
                with self._failing("cannot be cleared"):
                    self._delete_own()
        finally:
            self._redis_client.close()

    def _delete_own(self) -> None:
        names: list[Any] = []
        for name in self._redis_client.scan_iter(match=f"{self._names.mark}-*", count=1000):
            names.append(name)
            if len(names) == 1000:
                self._redis_client.unlink(*names)
                names.clear()
        if names:
            self._redis_client.unlink(*names)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that are not its defaults."""
        given = {k: v for k, v in self._options.items() if v != _DEFAULTS[k]}
        return {"hostname": self.hostname, "port": self.port, "clear": self.clear, **given}

    def evict(self, key: RedisKey) -> None:
        """Removes what is stored under `key`, if there is something."""
        self.evict_batch([key])

    def evict_batch(self, keys: Sequence[RedisKey]) -> None:
        """`evict` of several keys, in one round trip."""
        with self._failing("cannot be evicted", *keys[:1]):
            pipeline = self._redis_client.pipeline(transaction=False)
            for key in keys:
                pipeline.getrange(key.redis_key, 0, _HEAD - 1)
                pipeline.unlink(key.redis_key)
            pieces: list[str] = []
            for key, head in zip(keys, pipeline.execute()[::2], strict=True):
                pieces += _parse(key, head)[0]
            if pieces:
                self._redis_client.unlink(*pieces)

    def exists(self, key: RedisKey) -> bool:
        """Whether something is stored under `key`."""
        return self.exists_batch([key])[0]

    def exists_batch(self, keys: Sequence[RedisKey]) -> list[bool]:
        """`exists` of several keys, in one round trip."""
        with self._failing("cannot be looked for", *keys[:1]):
            pipeline = self._redis_client.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(key.redis_key)
            return [bool(found) for found in pipeline.execute()]

    def get(self, key: RedisKey) -> BytesLike | None:
        """What is stored under `key`; `None` if nothing is.

        Raises:
            ConnectorError: The server cannot be asked.
        """
        with self._failing("cannot be read", key):
            return self._whole(key, self._redis_client.get(key.redis_key))

    def get_batch(self, keys: Sequence[RedisKey]) -> list[BytesLike | None]:
        """`get` of several keys, in one round trip unless one lies in pieces."""
        if not keys:
            return []
        with self._failing("cannot be read", keys[0]):
            values = self._redis_client.mget([key.redis_key for key in keys])
            return [self._whole(key, value) for key, value in zip(keys, values, strict=True)]

    def _whole(self, key: RedisKey, value: bytes | None) -> BytesLike | None:
        if value is None:
            return None
        pieces, length = _parse(key, value)
        if not pieces:
            return value
        whole = bytearray(length)
        position = 0
        for piece in pieces:
            part = self._redis_client.get(piece)
            if part is None or position + len(part) > length:
                return None  # evicted since
            whole[position : position + len(part)] = part
            position += len(part)
        return memoryview(whole).toreadonly() if position == length else None

    def put(self, obj: BytesLike) -> RedisKey:
        """Stores bytes under a new key.

        Raises:
            ConnectorError: The server did not take them; nothing is left of them.
        """
        key = self.new_key()
        with self._failing("cannot be stored", key):
            self._store(key, obj)
        return key

    def put_batch(self, objs: Sequence[BytesLike]) -> list[RedisKey]:
        """`put` of several byte strings, many by one command; if one fails, none is left."""
        keys = [self.new_key() for _ in objs]
        with self._failing("cannot be stored", *keys[:1]):
            try:
                group: dict[str, Any] = {}
                nbytes = 0
                for key, obj in zip(keys, objs, strict=True):
                    view = memoryview(obj).cast("B")
                    if self._in_pieces(view):
                        self._set_pieces(key, view, True)
                        continue
                    group[key.redis_key] = obj if isinstance(obj, bytes) else view
                    nbytes += len(view)
                    if nbytes >= BATCH_SIZE:
                        self._redis_client.mset(group)
                        group, nbytes = {}, 0
                if group:
                    self._redis_client.mset(group)
            except BaseException:
                with contextlib.suppress(ConnectorError):
                    self.evict_batch(keys)
                raise
        return keys

    def new_key(self, obj: BytesLike | None = None) -> RedisKey:
        """A key whose bytes are stored later, by `set` in any process."""
        return RedisKey(self._names.new())

    def set(self, key: RedisKey, obj: BytesLike) -> None:
        """Stores bytes under a key of `new_key`. What was stored there is replaced in one step."""
        with self._failing("cannot be stored", key):
            earlier, _ = _parse(key, self._redis_client.getrange(key.redis_key, 0, _HEAD - 1))
            self._store(key, obj)
            if earlier:
                self._redis_client.unlink(*earlier)

    def set_once(self, key: RedisKey, obj: BytesLike) -> bool:
        """As `set`, if nothing is stored there; whether it was stored."""
        with self._failing("cannot be stored", key):
            return self._store(key, obj, replace=False)

    def _store(self, key: RedisKey, obj: BytesLike, *, replace: bool = True) -> bool:
        view = memoryview(obj).cast("B")
        if self._in_pieces(view):
            return self._set_pieces(key, view, replace)
        value = obj if isinstance(obj, bytes) else view
        return bool(self._redis_client.set(key.redis_key, value, nx=not replace))

    def _in_pieces(self, view: memoryview) -> bool:
        # Values that look like our mark go in pieces, too, so that none is mistaken for it.
        return len(view) > self._chunk_size or view[: len(_MARK)] == _MARK

    def _set_pieces(self, key: RedisKey, view: memoryview, replace: bool) -> bool:
        name = os.urandom(16)
        pieces = _pieces(key, name, -(-len(view) // self._chunk_size))
        try:
            for index, piece in enumerate(pieces):
                start = index * self._chunk_size
                self._redis_client.set(piece, view[start : start + self._chunk_size])
            value = _CHUNKED.pack(_MARK, name, len(pieces), len(view))
            stored = bool(self._redis_client.set(key.redis_key, value, nx=not replace))
        except BaseException:
            with contextlib.suppress(self._redis.RedisError):
                self._redis_client.unlink(*pieces)
            raise
        if not stored:
            self._redis_client.unlink(*pieces)
        return stored

    @contextlib.contextmanager
    def _failing(self, how: str, *key: RedisKey) -> Iterator[None]:
        try:
            yield
        except self._redis.RedisError as error:
            what = f"{key[0].redis_key} " if key else ""
            raise ConnectorError(
                f"{what}{how} in the server of {self!r}: {type(error).__name__}: {error}",
                connector=repr(self),
                key=key[0] if key else None,
            ) from error


_HEAD = _CHUNKED.size + 1
"""Bytes that tell whether a value stands for pieces."""


def _parse(key: RedisKey, value: bytes) -> tuple[list[str], int]:
    """The pieces that `value` stands for, none if it is a value, and their length together."""
    if len(value) != _CHUNKED.size or not value.startswith(_MARK):
        return [], 0
    _, name, count, length = _CHUNKED.unpack(value)
    return _pieces(key, name, count), length


def _pieces(key: RedisKey, name: bytes, count: int) -> list[str]:
    # Each value has pieces of its own, so that readers never mix them with those of a later one.
    return [f"{key.redis_key}:{name.hex()}:{index}" for index in range(count)]


# What `config` leaves out: it travels with every pickled proxy.
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(RedisConnector).parameters.items()
}
