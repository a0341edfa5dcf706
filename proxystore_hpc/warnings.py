"""Categories of warnings."""

from __future__ import annotations


class ExperimentalWarning(Warning):
    """Something may still change. For filters: this package warns of nothing by it."""
