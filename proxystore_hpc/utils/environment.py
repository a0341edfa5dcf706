"""What is around this process."""

from __future__ import annotations

import os
import socket


def home_dir() -> str:
    """Directory for files of the user's: `$PROXYSTORE_HOME`, or in `$XDG_DATA_HOME`."""
    home = os.environ.get("PROXYSTORE_HOME")
    if home:
        return os.path.abspath(os.path.expanduser(home))  # noqa: PTH100, PTH111
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
    return os.path.join(os.path.abspath(data), "proxystore")  # noqa: PTH100, PTH118


def hostname() -> str:
    """Name of this machine."""
    return socket.gethostname()
