"""Where the keeper is found, and what it may take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.sizes import parse_size

NAME_VARIABLE = "PROXYSTORE_HPC_KEEPER"
LIMIT_VARIABLE = "PROXYSTORE_HPC_KEEPER_LIMIT"
IDLE_VARIABLE = "PROXYSTORE_HPC_KEEPER_IDLE"
KEEP_VARIABLE = "PROXYSTORE_HPC_KEEP"

IDLE = 60.0
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Settings:
    """What a keeper is started with.

    Attributes:
        limit: Most bytes of objects that it keeps; 0 for a quarter of the machine's memory.
        idle: Seconds after which it ends when it holds nothing and no store is connected.
    """

    limit: int = 0
    idle: float = IDLE

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """What `PROXYSTORE_HPC_KEEPER_LIMIT` and `PROXYSTORE_HPC_KEEPER_IDLE` say.

        Raises:
            ConfigError: One of them cannot be meant.
        """
        given = os.environ if environment is None else environment
        return cls(
            limit=parse_limit(given.get(LIMIT_VARIABLE, "0"), LIMIT_VARIABLE),
            idle=parse_idle(given.get(IDLE_VARIABLE, str(IDLE)), IDLE_VARIABLE),
        )


def parse_limit(text: str, name: str) -> int:
    """Bytes in a size such as `"8GiB"`.

    Raises:
        ConfigError: It is none.
    """
    try:
        return parse_size(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def parse_idle(text: str, name: str) -> float:
    """Seconds, not negative.

    Raises:
        ConfigError: It is no such number.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{name}: a number of seconds is needed, not {text!r}")
    return seconds


def keep_by_default(environment: Mapping[str, str] | None = None) -> bool:
    """Whether stores that do not say are kept: `PROXYSTORE_HPC_KEEP=1`.

    Raises:
        ConfigError: It is neither 0 nor 1.
    """
    text = (os.environ if environment is None else environment).get(KEEP_VARIABLE, "0")
    if text not in ("", "0", "1"):
        raise ConfigError(f"{KEEP_VARIABLE}: 0 or 1 is needed, not {text!r}")
    return text == "1"


def socket_name(environment: Mapping[str, str] | None = None) -> bytes:
    """Name of the abstract unix socket at which this user's keeper of this node listens.

    `PROXYSTORE_HPC_KEEPER` adds a name, for those who want one of their own.

    Raises:
        ConfigError: That is too long, or empty of letters.
    """
    own = (os.environ if environment is None else environment).get(NAME_VARIABLE, "")
    if len(own) > _LONGEST_NAME or (own and not own.replace("-", "").replace("_", "").isalnum()):
        raise ConfigError(
            f"{NAME_VARIABLE}: at most {_LONGEST_NAME} letters, digits, - and _, not {own!r}"
        )
    return f"\0proxystore-hpc/{os.geteuid()}/keeper{'/' if own else ''}{own}".encode()
