"""Making what an engine stands on: the core's instance and its doors."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import pathlib
import stat
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.rpc.config import TRANSPORTS, EngineConfig, split_listen
from proxystore_hpc.store.opening import load_core
from proxystore_hpc.utils.locks import make_lock
from proxystore_hpc.utils.network import address_of, interface_with

if TYPE_CHECKING:
    from proxystore_hpc._core import Instance
    from proxystore_hpc.rpc.engine import Engine

logger = logging.getLogger(__name__)

_ON_NODE = "pshpc:///"
_SECRET_NBYTES = 16
_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def open_instance(
    config: EngineConfig, secret: bytes | None, mpi_door: Callable[[], Any] | None = None
) -> Instance:
    """The core's instance for an engine, its doors open but for those that `LazyUcx` opens.

    Args:
        config: Of the engine.
        secret: 16 bytes, `None` for none.
        mpi_door: Makes the door of the transport `"mpi"`.

    Raises:
        ConfigError: The place to listen is none of this machine.
        DoorUnavailableError: The native core, UCX, or a transport is missing; says how to get it.
    """
    if config.transport == "mpi" and mpi_door is None:
        raise DoorUnavailableError(
            "mpi", "it leads to the ranks of a job: make the engine with Engine.from_mpi(comm)"
        )
    host, port = ("", 0) if config.listen is None else split_listen(config.listen)
    if host:
        host = address_of(host)
    capacity = config.capacity or 0
    only = "mpi" if mpi_door is not None else config.bulk_door
    instance: Instance = load_core().Instance(
        config.name,
        capacity=capacity,
        pool_capacity=config.pool_capacity or capacity,
        doors=[] if only is None else [only],
        secret=secret,
        host=host,
        port=port,
        polling=config.progress == "polling",
        spin=config.spin,
        rings=config.uses_rings,
    )
    try:
        if mpi_door is not None:
            instance.open_door(mpi_door())
        elif TRANSPORTS[config.transport] is not None and config.transport != "auto":
            instance.open_door(_ucx_door(config, host))
    except BaseException:
        instance.close()
        raise
    return instance


class LazyUcx:
    """With the transport `"auto"`: UCX, opened once something off the node is to be reached.

    Args:
        instance: Where the door is opened.
        config: Of the engine.
    """

    def __init__(self, instance: Instance, config: EngineConfig) -> None:
        self._instance = instance
        self._config = config
        self._lock = make_lock()
        self._tried = config.transport != "auto"
        if config.listen is not None:
            self.need()

    def need(self) -> None:
        """Opens the door if it can be had; says once, loudly, if not."""
        if self._tried:
            return
        with self._lock:
            self._try()

    def _try(self) -> None:
        if self._tried:
            return
        listen = self._config.listen
        host = "" if listen is None else address_of(split_listen(listen)[0])
        try:
            self._instance.open_door(_ucx_door(self._config, host))
        except DoorUnavailableError as error:
            warnings.warn(
                f"the engine {self._config.name!r} has no fast way to other nodes: {error}",
                stacklevel=5,
            )
        self._tried = True


def leads_off_node(address: str) -> bool:
    """Whether an engine's address can be one on another node."""
    return not address.startswith(_ON_NODE)


def _ucx_door(config: EngineConfig, host: str) -> Any:
    from proxystore_hpc.ucx_runtime import import_ucx_module

    options = dict(config.ucx)
    tls = TRANSPORTS[config.transport]
    if tls:
        options.setdefault("tls", tls)
    if host and not host.startswith("127."):
        options.setdefault("interface", interface_with(host) or "")
    return import_ucx_module().create_door(**options)


def find_secret(config: EngineConfig, secret: bytes | str | None) -> bytes | None:
    """The 16 bytes that stand for a secret; any text or bytes will do.

    Raises:
        ConfigError: It is empty, given twice, or in a file that others may read.
    """
    if config.secret_file is not None:
        if secret is not None:
            raise ConfigError("secret: it is given, and in secret_file as well; choose one")
        secret = _read_secret(pathlib.Path(config.secret_file))
    if secret is None:
        return None
    given: object = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(given, bytes) or not given:
        raise ConfigError("secret: bytes or a text are needed, and not empty")
    if len(given) == _SECRET_NBYTES:
        return given
    return hashlib.blake2b(given, digest_size=_SECRET_NBYTES).digest()


def _read_secret(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read().strip()
    except OSError as error:
        raise ConfigError(f"secret_file: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"secret_file: others may read {path}: chmod 600 {path}")
    return secret


def remember(engine: Engine) -> None:
    """Closes the engine when the interpreter ends, unless that happened before."""
    _open_engines.add(engine)


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        try:
            engine.close()
        except Exception:
            logger.exception("closing the engine %r at exit failed", engine.name)
