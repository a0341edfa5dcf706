"""Libraries that only some parts need."""

from __future__ import annotations

import importlib
from typing import Any

from proxystore_hpc.exceptions import MissingLibraryError


def import_optional(module: str, *, extra: str, purpose: str) -> Any:
    """Imports a library that an extra of this package brings.

    Args:
        module: Dotted name of the module.
        extra: Name of the extra.
        purpose: What needs it, to begin the error's message with.

    Raises:
        MissingLibraryError: It is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"{purpose} needs {module.partition('.')[0]} ({error}): "
            f"pip install 'proxystore_hpc[{extra}]'",
            extra=extra,
        ) from error
