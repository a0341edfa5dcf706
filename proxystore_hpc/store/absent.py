"""A store on a machine that has no native core: it reads over TCP, and stores nothing here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from proxystore_hpc.exceptions import DoorUnavailableError


class AbsentInstance:
    """In the place of `proxystore_hpc._core.Instance`. What would need the core says so.

    Args:
        why: Why the core is not there.
    """

    owner_id = "none"

    def __init__(self, why: DoorUnavailableError) -> None:
        self._why = why

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DoorUnavailableError(self._why.door, self._why.reason)

    def _refuse_each(self, keys: Sequence[bytes], *_: Any) -> list[DoorUnavailableError]:
        return [DoorUnavailableError(self._why.door, self._why.reason) for _ in keys]

    @property
    def address(self) -> NoReturn:
        """Raises: nobody could be told to store here."""
        self._refuse()

    put = put_to = allocate = new_key = _refuse
    get = get_range = read_into = wait_for = store_of = channels = open_door = _refuse
    put_into = hold = watch = start_wait = _refuse
    get_batch = exists = evict = validate = extend = _refuse_each

    def release(self, *_: Any) -> None:
        """No references are held."""

    def set_config(self, config: str, /) -> None:
        """Nobody asks for it."""

    def set_outside(self, outside: bytes, /) -> None:
        """No keys are made."""

    def stats(self) -> dict[str, int]:
        """Nothing is held."""
        return {}

    def doors(self) -> dict[str, dict[str, str]]:
        """None is open."""
        return {}

    def close(self, clear: bool = False) -> None:
        """Nothing is open."""
