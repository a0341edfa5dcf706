"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "b": 1,
    **{prefix: 1 << 10 * power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}ib": 1 << 10 * power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}b": int(10 ** (3 * power)) for power, prefix in enumerate("kmgtp", 1)},
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Bytes in a size such as `4096`, `"4GiB"`, `"1.5 MB"` or `"512k"`.

    `kB`, `MB`, ... are powers of 1000; `KiB`, `MiB`, ... and `k`, `m`, ... are powers of 1024.

    Raises:
        ValueError: It is negative or no size.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 0:
            raise ValueError(f"a size cannot be negative: {size}")
        return size
    match = _PATTERN.fullmatch(size) if isinstance(size, str) else None
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{size!r} is no size: write bytes, or a text such as '512 MiB' or '4GB'")
    whole, _, fraction = match[1].partition(".")
    # In integers, so that sizes beyond 2**53 bytes stay exact.
    return int(whole + fraction) * unit // int(10 ** len(fraction))


def format_size(nbytes: int) -> str:
    """A size for people, with three digits: `"1.50 MiB"`."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{nbytes} B"
    digits = max(0, 2 - (value >= 10) - (value >= 100))
    return f"{value:.{digits}f} {unit}"
