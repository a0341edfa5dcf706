"""Small helpers without a better home. All of them lie below the rest of the package.

Those that ProxyStore has are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxystore_hpc.utils.data import bytes_to_readable as bytes_to_readable
    from proxystore_hpc.utils.data import chunk_bytes as chunk_bytes
    from proxystore_hpc.utils.data import readable_to_bytes as readable_to_bytes
    from proxystore_hpc.utils.environment import home_dir as home_dir
    from proxystore_hpc.utils.environment import hostname as hostname
    from proxystore_hpc.utils.imports import get_object_path as get_object_path
    from proxystore_hpc.utils.imports import import_from_path as import_from_path

_HOMES = {
    "bytes_to_readable": "data",
    "chunk_bytes": "data",
    "get_object_path": "imports",
    "home_dir": "environment",
    "hostname": "environment",
    "import_from_path": "imports",
    "readable_to_bytes": "data",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
