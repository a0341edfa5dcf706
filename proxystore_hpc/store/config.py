"""What a store is made of, as plain data."""

from __future__ import annotations

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.options import Options
from proxystore_hpc.store.serving import Serving, gateways
from proxystore_hpc.utils import toml
from proxystore_hpc.utils.imports import get_object_path, import_from_path
from proxystore_hpc.utils.sizes import parse_size

CACHE_BYTES = 256 * 1024**2
TIMEOUT = 60.0
PROGRESS = ("adaptive", "polling")

_KNOWN_CONNECTORS = {
    "hpc": "proxystore_hpc.connectors.hpc.HPCConnector",
    **{
        name: f"proxystore_hpc.connectors.{name}.{name.capitalize()}Connector"
        for name in ("file", "local", "multi", "redis")
    },
    # Only ProxyStore has these.
    **{
        name: f"proxystore.connectors.{name}.{name.capitalize()}Connector"
        for name in ("endpoint", "globus")
    },
}

ConfigT = TypeVar("ConfigT", bound="_Config")


class _Config:
    """Conversion of a dataclass to and from dictionaries, TOML and JSON."""

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """Makes a configuration of a dictionary.

        Raises:
            ConfigError: A key is unknown, one is missing, or a value is of the wrong kind.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"a {cls.__name__} is made of a mapping, not of a {type(values).__name__}"
            )
        names = [field.name for field in dataclasses.fields(cast(Any, cls))]
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)[0]
                raise ConfigError(
                    f"{cls.__name__} has no field {key!r}: did you mean {near!r}? "
                    f"The fields are {', '.join(names)}"
                )
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dictionary of plain values, which `from_dict` takes.

        Raises:
            ConfigError: A serializer has no dotted path.
        """
        values = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(cast(Any, self))
        }
        return {name: _plain(name, value) for name, value in values.items()}

    @classmethod
    def from_json(cls: type[ConfigT], text: str) -> ConfigT:
        """Makes a configuration of a JSON text.

        Raises:
            ConfigError: As for `from_dict`, or the text is not JSON.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the configuration is not valid JSON: {error}") from error
        return cls.from_dict(values)

    def to_json(self) -> str:
        """The configuration as a JSON text."""
        try:
            return json.dumps(self.to_dict(), indent=2)
        except TypeError as error:
            raise ConfigError(f"the configuration cannot be written to JSON: {error}") from error

    @classmethod
    def from_toml(cls: type[ConfigT], filepath: str | pathlib.Path) -> ConfigT:
        """Reads a configuration from a TOML file.

        Raises:
            ConfigError: As for `from_dict`, or the file is not TOML.
            OSError: The file cannot be read.
        """
        try:
            values = toml.loads(pathlib.Path(filepath).read_text("utf-8"))
        except ValueError as error:
            raise ConfigError(f"{filepath} is not valid TOML: {error}") from error
        return cls.from_dict(values)

    def write_toml(self, filepath: str | pathlib.Path) -> None:
        """Writes the configuration to a TOML file, making its directory if need be.

        Raises:
            ConfigError: An option cannot be written to TOML.
            OSError: The file cannot be written.
        """
        try:
            text = toml.dumps(self.to_dict())
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"the configuration cannot be written: {error}") from error
        path = pathlib.Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@dataclasses.dataclass
class ConnectorConfig(_Config):
    """A connector by its type and arguments.

    Attributes:
        kind: Dotted path of the class, or a short name: `"file"`, `"hpc"`, `"local"`, `"multi"` and
            `"redis"` are this package's, `"endpoint"` and `"globus"` are ProxyStore's.
            `"FileConnector"` is the same as `"file"`.
        options: What the class's `from_config` takes.
    """

    kind: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect("kind", self.kind, str)
        _expect("options", self.options, Mapping)

    def get_connector_type(self) -> type[Any]:
        """The class that `kind` names.

        Raises:
            ConfigError: There is no such class here.
        """
        name = self.kind.lower().removesuffix("connector")
        path = _KNOWN_CONNECTORS.get(name, self.kind)
        try:
            return cast(type[Any], import_from_path(path))
        except ImportError as error:
            near = difflib.get_close_matches(name, _KNOWN_CONNECTORS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near and path == self.kind else ""
            raise ConfigError(f"unknown connector type {self.kind!r}: {error}.{hint}") from error

    def get_connector(self) -> Any:
        """A new connector of this configuration.

        Raises:
            ConfigError: There is no such class here, or it does not take these options.
        """
        kind = self.get_connector_type()
        make = getattr(kind, "from_config", None)
        try:
            return kind(**self.options) if make is None else make(dict(self.options))
        except TypeError as error:
            raise ConfigError(f"options of {self.kind}: {error}") from error


@dataclasses.dataclass
class StoreConfig(_Config):
    """What a store is made of. Sizes may be written as `"4GiB"`, functions as dotted paths.

    Attributes:
        name: Name of the store.
        connector: Keeps the objects, instead of this package's own memory and doors.
        serializer: Function that makes bytes of an object, `None` for the built-in one.
        deserializer: Function that makes an object of bytes, `None` for the built-in one.
        cache_size: Most resolved objects that are kept.
        cache_bytes: Most bytes that they may take.
        metrics: Record what each operation costs.
        populate_target: A new proxy keeps the object that it was made of.
        auto_register: Register the store in its process.
        capacity: Bytes of registered memory, `None` for a share of what is free.
        doors: Names of the doors that may be used, `None` for all that there are.
        timeout: Default deadline of an operation in seconds.
        interface: Name or address of the network interface to use, `None` to choose.
        progress: `"adaptive"` sleeps when idle, `"polling"` gives a core away.
        grace: Seconds before the memory of an evicted object is used again, `None` for the
            default.
        tcp: Serve processes off the cluster too: true for this machine only, `"host:port"` to
            listen at, or a mapping, see `proxystore_hpc.store.serving.Serving`.
        gateway: Gateways that lead here, for keys to carry: `"host:port"`, a mapping, or a list of
            them, see `proxystore_hpc.store.serving.Gateway`.
        keep: Leave what is stored to the keeper of this node when this process ends or closes the
            store; `None` for what `PROXYSTORE_HPC_KEEP` says.
        options: What few stores need, see `proxystore_hpc.store.options.Options`.
    """

    name: str
    connector: ConnectorConfig | None = None
    serializer: Callable[[Any], Any] | str | None = None
    deserializer: Callable[[Any], Any] | str | None = None
    cache_size: int = 16
    cache_bytes: int = CACHE_BYTES
    metrics: bool = False
    populate_target: bool = True
    auto_register: bool = False
    capacity: int | None = None
    doors: tuple[str, ...] | None = None
    timeout: float = TIMEOUT
    interface: str | None = None
    progress: str = "adaptive"
    grace: float | None = None
    tcp: bool | str | dict[str, Any] | None = None
    gateway: str | dict[str, Any] | list[Any] | None = None
    keep: bool | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect("name", self.name, str)
        if not self.name:
            raise ConfigError("name: a store needs a name that is not empty")
        connector: Any = self.connector
        if isinstance(connector, Mapping):
            self.connector = ConnectorConfig.from_dict(connector)
        elif connector is not None:
            _expect("connector", connector, ConnectorConfig)
        for name in ("serializer", "deserializer"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str) or callable(value)):
                raise ConfigError(f"{name}: {value!r} is neither a function nor a dotted path")
        for name in ("metrics", "populate_target", "auto_register"):
            _expect(name, getattr(self, name), bool)
        _expect("cache_size", self.cache_size, int)
        if self.cache_size < 0:
            raise ConfigError(f"cache_size: cannot be negative: {self.cache_size}")
        self.cache_bytes = _size("cache_bytes", self.cache_bytes)
        if self.capacity is not None:
            self.capacity = _size("capacity", self.capacity)
        if self.doors is not None:
            self.doors = _names("doors", self.doors)
        self.timeout = _seconds("timeout", self.timeout)
        if self.grace is not None:
            self.grace = _seconds("grace", self.grace)
        if self.interface is not None:
            _expect("interface", self.interface, str)
        if self.progress not in PROGRESS:
            raise ConfigError(
                f"progress: one of {', '.join(PROGRESS)} is needed, not {self.progress!r}"
            )
        if self.tcp is False:
            self.tcp = None
        if self.tcp is not None:
            Serving.parse(self.tcp)
        gateways(self.gateway)
        if self.keep is not None:
            _expect("keep", self.keep, bool)
        _expect("options", self.options, Mapping)
        Options.parse(self.options)

    def changed_fields(self) -> dict[str, Any]:
        """The fields that are not at their defaults, as `from_dict` takes them."""
        plain = StoreConfig(self.name)
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name == "name" or getattr(self, field.name) != getattr(plain, field.name)
        }

    def get_serializer(self) -> Callable[[Any], Any] | None:
        """The serializer as a function.

        Raises:
            ConfigError: Its dotted path leads nowhere.
        """
        return _function("serializer", self.serializer)

    def get_deserializer(self) -> Callable[[Any], Any] | None:
        """The deserializer as a function.

        Raises:
            ConfigError: Its dotted path leads nowhere.
        """
        return _function("deserializer", self.deserializer)


def _expect(name: str, value: object, kind: type[Any]) -> None:
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name}: a {kind.__name__} is needed, not {value!r} of type {type(value).__name__}"
        )


def _size(name: str, value: int | str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{name}: a number of seconds is needed, not {value!r}")
    return float(value)


def _names(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigError(f"{name}: several names are needed, such as ({value!r},)")
    names = tuple(value)
    if not names or not all(isinstance(item, str) for item in names):
        raise ConfigError(f"{name}: at least one name is needed, and only names, not {value!r}")
    return names


def _function(name: str, value: Callable[[Any], Any] | str | None) -> Callable[[Any], Any] | None:
    if not isinstance(value, str):
        return value
    try:
        found = import_from_path(value)
    except ImportError as error:
        raise ConfigError(f"{name}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{name}: {value!r} is no function but a {type(found).__name__}")
    return cast(Callable[[Any], Any], found)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, _Config):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if callable(value):
        try:
            return get_object_path(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    return value
