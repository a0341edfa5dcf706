"""Durations and sizes as people write them."""

from __future__ import annotations

__all__ = ["duration", "rough", "size"]


def duration(seconds: float | None) -> str:
    """With three digits and a unit."""
    if seconds is None:
        return "-"
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        value = seconds * factor
        if value < 999.5:
            return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f} {unit}"
    return f"{seconds:.2f} s"


def rough(seconds: float) -> str:
    """For what takes long: seconds, minutes, or hours and minutes."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(nbytes: int) -> str:
    """In the unit, binary or decimal, that divides it and leaves the smallest number."""
    units = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "kB": 10**3}
    able = {name: nbytes // unit for name, unit in units.items() if nbytes and not nbytes % unit}
    if not able:
        return f"{nbytes} B"
    name = min(able, key=able.__getitem__)
    return f"{able[name]} {name}"
