"""Configurations as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol, TypeVar

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils import toml

ConfigT = TypeVar("ConfigT", bound="Configuration")


class Configuration(Protocol):
    """What can be written and read: `StoreConfig`, `ConnectorConfig`, and others like them."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dictionary of plain values."""

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any], /) -> ConfigT:
        """A configuration of such a dictionary."""


def dumps(model: Configuration, *, exclude_none: bool = True) -> str:
    """A configuration as a TOML text.

    Args:
        model: The configuration.
        exclude_none: Leave out what is `None`, for which TOML has no word.

    Raises:
        ConfigError: A value cannot be written, such as `None` if it is not left out.
    """
    values = model.to_dict()
    empty = [name for name, value in values.items() if value is None]
    if empty and not exclude_none:
        raise ConfigError(f"{', '.join(empty)}: TOML has no word for None; leave exclude_none on")
    try:
        return toml.dumps(values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"the configuration cannot be written: {error}") from error


def dump(model: Configuration, fp: BinaryIO, *, exclude_none: bool = True) -> None:
    """Writes a configuration to a file that is open in binary mode. See `dumps`."""
    fp.write(dumps(model, exclude_none=exclude_none).encode())


def loads(model: type[ConfigT], data: str) -> ConfigT:
    """A configuration of a TOML text.

    Args:
        model: Its class.
        data: The text.

    Raises:
        ConfigError: It is not valid TOML, or not such a configuration.
    """
    try:
        values = toml.loads(data)
    except ValueError as error:
        raise ConfigError(f"the configuration is not valid TOML: {error}") from error
    return model.from_dict(values)


def load(model: type[ConfigT], fp: BinaryIO) -> ConfigT:
    """Reads a configuration from a file that is open in binary mode. See `loads`."""
    return loads(model, fp.read().decode())
