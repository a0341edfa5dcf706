"""Payloads that show whether they arrived whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["WrongBytesError", "expect", "pattern"]

# A prime, so that no shift by a power of two gives the same bytes.
_PERIOD = 251


class WrongBytesError(Exception):
    """What arrived is not what was sent."""


def pattern(nbytes: int, shift: int = 0) -> npt.NDArray[np.uint8]:
    """Bytes, shape (`nbytes`,), that are no others when shifted or cut.

    Another `shift` gives other bytes, so that what lay there from the last time is noticed.
    """
    import numpy as np

    return np.resize(np.roll(np.arange(_PERIOD, dtype="u1"), -shift), nbytes)


def expect(found: Any, nbytes: int, shift: int = 0) -> None:
    """Compares what arrived with `pattern(nbytes, shift)`.

    Args:
        found: An array, or anything with the buffer protocol.
        nbytes: How many bytes were sent.
        shift: Which bytes were sent.

    Raises:
        WrongBytesError: Length or content differ.
    """
    import numpy as np

    array = np.frombuffer(found, "u1")
    if array.nbytes != nbytes:
        raise WrongBytesError(f"{array.nbytes} bytes arrived instead of {nbytes}")
    # A buffer of one piece at a time: comparing 1 GiB must not need two more.
    step = _PERIOD << 14
    expected = pattern(min(nbytes, step), shift)
    for start in range(0, nbytes, step):
        piece = array[start : start + step]
        if not np.array_equal(piece, expected[: piece.nbytes]):
            raise WrongBytesError(f"other bytes than were sent, beyond the first {start}")
