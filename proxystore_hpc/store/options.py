"""What few stores need: the mapping `options` of a store's configuration, checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.sizes import parse_size

__all__ = ["Options", "check_names", "check_token"]

_UCX_TYPES: dict[str, type | tuple[type, ...]] = {
    "tls": str,
    "interface": str,
    "net_devices": str,
    "error_handling": bool,
    "keepalive": (int, float),
    "tuning": Mapping,
}
_LAST_PORT = 65535
_LONGEST_LEASE = 366 * 86400


@dataclass(frozen=True)
class Options:
    """Further options of a store.

    Attributes:
        pool_capacity: Bytes of memory that what comes over a network lands in, a number or a text
            such as `"512MiB"`; 0 for as much as the store's capacity.
        port: TCP port where processes of other nodes say hello, 0 for any.
        spin: Seconds that the progress thread looks for more before it sleeps.
        lease: Seconds that a pickled reference (`proxystore_hpc.store.ref`) may be on its way: one
            that nobody loads ends after that time.
        put_token: Secret in hexadecimal digits that is shown to servers and gateways to put through
            them, see `Store.put`.
        ucx: Arguments of the ucx door: `tls`, `interface`, `net_devices`, `error_handling`,
            `keepalive` (seconds), `tuning` (settings of UCX without their prefix).
        share_cached: For stores with a connector: `get` gives the very object that it gave before,
            as long as that is cached, so that callers see each other's changes. By default every
            `get` makes an object of its own.
        one_at_a_time: For stores with a connector: whether only one thread may use it at a time.
            By default only where connectors are known to need that.
    """

    pool_capacity: int = 0
    port: int = 0
    spin: float = 100e-6
    lease: float = 300.0
    put_token: str = ""
    ucx: Mapping[str, Any] | None = None
    share_cached: bool = False
    one_at_a_time: bool | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Checks names and values.

        Raises:
            ConfigError: One is unknown or of the wrong kind; says which, and what there is.
        """
        check_names("options", given, [field.name for field in fields(cls)])
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
        lease = given.get("lease", 1.0)
        if not isinstance(lease, (int, float)) or not 0 < lease <= _LONGEST_LEASE:
            raise ConfigError(f"options: lease: seconds up to a year are needed, not {lease!r}")
        check_token("options", given.get("put_token", ""))
        for name in ("share_cached", "one_at_a_time"):
            if not isinstance(given.get(name, False), bool):
                raise ConfigError(f"options: {name}: true or false is needed, not {given[name]!r}")
        ucx = given.get("ucx", {})
        if not isinstance(ucx, Mapping):
            raise ConfigError(f"options: ucx: a mapping is needed, not {ucx!r}")
        check_names("options: ucx", ucx, list(_UCX_TYPES))
        for name, value in ucx.items():
            if not isinstance(value, _UCX_TYPES[name]):
                raise ConfigError(f"options: ucx: {name}: {value!r} is of the wrong type")
        return cls(**values)


def check_token(where: str, token: object) -> None:
    """Checks a token of those who put from outside.

    Raises:
        ConfigError: It has no hexadecimal digits, or something else.
    """
    try:
        bytes.fromhex(token)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: put_token: {error}") from error


def check_names(where: str, given: Mapping[str, Any], known: list[str]) -> None:
    """Checks the names in a mapping.

    Raises:
        ConfigError: One is unknown; says which is meant, or which there are.
    """
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"do you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"{where}: there is no option {name!r}; {hint}")
