"""Errors of streams; defined with all others in `proxystore_hpc.exceptions`."""

from __future__ import annotations

from proxystore_hpc.exceptions import (
    OffsetGoneError,
    StreamError,
    TopicClosedError,
    TopicFullError,
)

__all__ = ["OffsetGoneError", "StreamError", "TopicClosedError", "TopicFullError"]
