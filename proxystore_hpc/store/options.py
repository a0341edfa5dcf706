"""What few stores need: the mapping `options` of a store's configuration, checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.sizes import parse_size

__all__ = ["Options"]

_UCX_TYPES: dict[str, type | tuple[type, ...]] = {
    "tls": str,
    "interface": str,
    "net_devices": str,
    "error_handling": bool,
    "keepalive": (int, float),
    "tuning": Mapping,
}
_LAST_PORT = 65535


@dataclass(frozen=True)
class Options:
    """Further options of a store.

    Attributes:
        pool_capacity: Bytes of memory that what comes over a network lands in, a number or a text
            such as `"512MiB"`; 0 for as much as the store's capacity.
        port: TCP port where processes of other nodes say hello, 0 for any.
        spin: Seconds that the progress thread looks for more before it sleeps.
        ucx: Arguments of the ucx door: `tls`, `interface`, `net_devices`, `error_handling`,
            `keepalive` (seconds), `tuning` (settings of UCX without their prefix).
    """

    pool_capacity: int = 0
    port: int = 0
    spin: float = 100e-6
    ucx: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Checks names and values.

        Raises:
            ConfigError: One is unknown or of the wrong kind; says which, and what there is.
        """
        _check_names("options", given, [field.name for field in fields(cls)])
        values = dict(given)
        if "pool_capacity" in given:
            try:
                values["pool_capacity"] = parse_size(given["pool_capacity"])
            except ValueError as error:
                raise ConfigError(f"options: pool_capacity: {error}") from error
        port = given.get("port", 0)
        if not isinstance(port, int) or not 0 <= port <= _LAST_PORT:
            raise ConfigError(f"options: port: {port!r} is no TCP port")
        spin = given.get("spin", 0.0)
        if not isinstance(spin, (int, float)) or not 0 <= spin < 1:
            raise ConfigError(f"options: spin: seconds from 0 to 1 are needed, not {spin!r}")
        ucx = given.get("ucx", {})
        if not isinstance(ucx, Mapping):
            raise ConfigError(f"options: ucx: a mapping is needed, not {ucx!r}")
        _check_names("options: ucx", ucx, list(_UCX_TYPES))
        for name, value in ucx.items():
            if not isinstance(value, _UCX_TYPES[name]):
                raise ConfigError(f"options: ucx: {name}: {value!r} is of the wrong type")
        return cls(**values)


def _check_names(where: str, given: Mapping[str, Any], known: list[str]) -> None:
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"do you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"{where}: there is no option {name!r}; {hint}")
