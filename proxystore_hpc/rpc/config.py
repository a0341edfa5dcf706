"""What an engine is made of, as plain data: from arguments, a file, or the environment."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.config import PROGRESS, _Config, _expect, _seconds, _size
from proxystore_hpc.store.options import Options

__all__ = ["DEFAULT_POOL", "EngineConfig"]

DEFAULT_POOL = "default"
ENVIRONMENT = "PROXYSTORE_HPC_ENGINE_"
TIMEOUT = 30.0
TRANSPORTS: dict[str, str | None] = {
    "auto": "",
    "shm": None,
    "ucx": "",
    "tcp": "tcp,self",
    "mpi": None,
}
"""UCX's list of transports for each of ours; `None`: UCX is not used."""

_WITHOUT_RINGS = ("tcp", "mpi")

_BULK_DOORS = {
    "shm": ("auto", "shm", "ucx", "tcp"),
    "ucx": ("ucx", "tcp"),
    "socket": ("auto", "shm", "ucx", "tcp"),
}
"""The transports of engines that have each of these doors from the start."""

_EVERYWHERE = ("0.0.0.0", "::", "[::]", "*", "")
_TEXTS = ("name", "transport", "listen", "progress", "secret_file", "bulk_door")


@dataclasses.dataclass
class EngineConfig(_Config):
    """What an engine is made of, but for its secret. `engine.config` gives it back exactly.

    Attributes:
        transport: `"auto"`, shared memory on the node, and UCX, once something else is to be
            reached, off it; `"shm"`, nothing else; `"ucx"`, UCX from the start; `"tcp"`, UCX
            limited to that, on the node as well; `"mpi"`, windows of MPI and nothing else, with
            `Engine.from_mpi` only.
        rings: Whether messages on the node go through rings in shared memory rather than through
            UCX; `None` for all transports but `"tcp"` and `"mpi"`.
        bulk_door: The only way of this engine's own pulls and pushes, to see how they do there:
            `"shm"`, `"ucx"`, or `"socket"`, the connection that peers said hello through. They
            fail where it does not lead. `None`: the best that is open, on a node always `"shm"`.
        listen: `"HOST:PORT"` or `"INTERFACE:PORT"` where peers off this node say hello; port 0, or
            none, for any that is free. `None`: reachable on its node only.
        name: Name of the engine in messages, and what its peers are told.
        progress: `"adaptive"` sleeps when idle, `"polling"` keeps a core busy.
        spin: Seconds that the progress thread looks for more before it sleeps.
        handlers: Threads of each pool of handlers, by its name. A number is the size of the pool
            `"default"`, which always exists.
        extra_handlers: Most threads of a pool beyond its size, which stand in while handlers wait
            for calls of their own.
        timeout: Default deadline of a call in seconds.
        capacity: Bytes of registered memory, also as `"1GiB"`; `None` for a share of what is free.
        pool_capacity: Bytes of memory that payloads land in; `None` for as much as `capacity`.
        remote_shutdown: Peers may end this engine by `Engine.shutdown`.
        secret_file: File that holds the secret; only its owner may be able to read it.
        ucx: Arguments of the ucx door, see `proxystore_hpc.store.options.Options`.
    """

    transport: str = "auto"
    listen: str | None = None
    name: str = "engine"
    progress: str = "adaptive"
    spin: float = 100e-6
    handlers: dict[str, int] = dataclasses.field(default_factory=dict)
    extra_handlers: int = 64
    timeout: float = TIMEOUT
    capacity: int | None = None
    pool_capacity: int | None = None
    remote_shutdown: bool = False
    secret_file: str | None = None
    ucx: dict[str, Any] = dataclasses.field(default_factory=dict)
    rings: bool | None = None
    bulk_door: str | None = None

    @property
    def uses_rings(self) -> bool:
        """Whether messages on the node go through rings in shared memory."""
        return self.transport not in _WITHOUT_RINGS if self.rings is None else self.rings

    def __post_init__(self) -> None:
        _expect("transport", self.transport, str)
        if self.transport not in TRANSPORTS:
            raise ConfigError(
                f"transport: there is no transport {self.transport!r}; there are "
                f"{', '.join(TRANSPORTS)}"
            )
        for name in ("listen", "secret_file", "bulk_door"):
            if getattr(self, name) is not None:
                _expect(name, getattr(self, name), str)
        if self.listen is not None:
            split_listen(self.listen)
        _expect("name", self.name, str)
        if not self.name:
            raise ConfigError("name: an engine needs a name that is not empty")
        if self.progress not in PROGRESS:
            raise ConfigError(
                f"progress: one of {', '.join(PROGRESS)} is needed, not {self.progress!r}"
            )
        self.handlers = _pools(self.handlers)
        _expect("extra_handlers", self.extra_handlers, int)
        if not 0 <= self.extra_handlers <= 10_000:
            raise ConfigError(f"extra_handlers: from 0 to 10000, not {self.extra_handlers}")
        self.timeout = _seconds("timeout", self.timeout)
        for name in ("capacity", "pool_capacity"):
            if getattr(self, name) is not None:
                setattr(self, name, _size(name, getattr(self, name)))
        _expect("remote_shutdown", self.remote_shutdown, bool)
        _expect("ucx", self.ucx, Mapping)
        self.ucx = dict(self.ucx)
        self.spin = float(Options.parse({"spin": self.spin, "ucx": self.ucx}).spin)
        if self.rings is not None:
            _expect("rings", self.rings, bool)
            if not self.rings and self.transport == "shm":
                raise ConfigError("rings: the transport 'shm' is nothing without them")
        self._check_bulk_door()
        if TRANSPORTS[self.transport] is None and self.ucx:
            raise ConfigError(
                f"ucx: the transport {self.transport!r} does without UCX; leave its options out"
            )

    def _check_bulk_door(self) -> None:
        if self.bulk_door is None:
            return
        if self.bulk_door not in _BULK_DOORS:
            raise ConfigError(
                f"bulk_door: one of {', '.join(_BULK_DOORS)} is needed, not {self.bulk_door!r}"
            )
        having = _BULK_DOORS[self.bulk_door]
        if self.transport not in having:
            raise ConfigError(
                f"bulk_door: the transport {self.transport!r} does not open the door "
                f"{self.bulk_door!r}; {', '.join(having)} do"
            )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> EngineConfig:
        """Reads a JSON file (`.json`) or a TOML file (any other name).

        Raises:
            ConfigError: It is not valid, or says what cannot be meant.
            OSError: It cannot be read.
        """
        path = pathlib.Path(path)
        if path.suffix == ".json":
            return cls.from_json(path.read_text("utf-8"))
        return cls.from_toml(path)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> EngineConfig:
        """What the variables `PROXYSTORE_HPC_ENGINE_...` say, such as `..._TRANSPORT=tcp`.

        `..._CONFIG` names a file, which the others override. Values that are not texts are JSON;
        `..._HANDLERS` may be a number.

        Raises:
            ConfigError: One is of no field, or its value cannot be meant.
        """
        given = {
            name.removeprefix(ENVIRONMENT).lower(): value
            for name, value in (os.environ if environment is None else environment).items()
            if name.startswith(ENVIRONMENT)
        }
        path = given.pop("config", None)
        values = cls.from_file(path).to_dict() if path is not None else {}
        for name, text in given.items():
            values[name] = text if name in _TEXTS else _parse(name, text)
        return cls.from_dict(values)


def make_config(config: Any, given: Mapping[str, Any]) -> EngineConfig:
    """The configuration that arguments of an engine mean; those given override `config`.

    Args:
        config: A configuration, a mapping, the path of a file, or `None` for what the environment
            says.
        given: Fields by name.

    Raises:
        ConfigError: Something cannot be meant.
    """
    if config is None:
        base = EngineConfig.from_environment()
    elif isinstance(config, EngineConfig):
        base = config
    elif isinstance(config, Mapping):
        base = EngineConfig.from_dict(config)
    elif isinstance(config, (str, os.PathLike)):
        base = EngineConfig.from_file(config)
    else:
        raise ConfigError(
            "config: an EngineConfig, a mapping or the path of a file is needed, not a "
            f"{type(config).__name__}"
        )
    return EngineConfig.from_dict({**base.to_dict(), **given})


def split_address(address: str) -> tuple[str, str | None]:
    """Transport and place to listen of an engine's first argument.

    Raises:
        ConfigError: It is neither a transport nor `TRANSPORT://HOST:PORT`.
    """
    _expect("address", address, str)
    transport, separator, listen = address.partition("://")
    if transport not in TRANSPORTS or (separator and not listen):
        raise ConfigError(
            f"address: {address!r} is neither a transport ({', '.join(TRANSPORTS)}) nor an address "
            "to listen on such as 'tcp://10.0.0.5:7777'"
        )
    return transport, listen or None


def split_listen(listen: str) -> tuple[str, int]:
    """Host or interface, and port, of a place to listen.

    Raises:
        ConfigError: It is none, or means every network.
    """
    host, separator, digits = listen.rpartition(":")
    if not separator:
        host, digits = listen, "0"
    if host in _EVERYWHERE:
        raise ConfigError(
            f"listen: {listen!r} would open the engine to every network of this machine: name the "
            "interface or the address that its peers use, such as 'ib0:7777' or '10.0.0.5:7777'"
        )
    if not digits.isascii() or not digits.isdigit() or int(digits) > 65535:
        raise ConfigError(f"listen: {digits!r} is no TCP port")
    return host, int(digits)


def _pools(given: Any) -> dict[str, int]:
    pools = given if isinstance(given, Mapping) else {DEFAULT_POOL: given}
    for name, size in pools.items():
        _expect("handlers", name, str)
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 10_000:
            raise ConfigError(
                f"handlers: the pool {name!r} needs a number of threads from 1 on, not {size!r}"
            )
    return {DEFAULT_POOL: 1, **pools}


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a size such as 1GiB; whatever else it is, its field says what is wrong
