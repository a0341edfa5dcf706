"""Objects by their dotted path."""

from __future__ import annotations

import importlib
from typing import Any


def get_object_path(obj: Any) -> str:
    """The dotted path by which `import_from_path` finds `obj`, a class or function.

    Raises:
        ValueError: It has none: a lambda, or something defined inside a function.
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None)
    if module is None or name is None or "<" in name:
        raise ValueError(
            f"{obj!r} cannot be found by a dotted path: define it at the top level of a module"
        )
    return f"{module}.{name}"


def import_from_path(path: str) -> Any:
    """Imports the object of a dotted path such as `"package.module.Class.method"`.

    Raises:
        ImportError: No module of the path can be imported, or it has no such attribute.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ImportError(f"{path!r} is no dotted path such as 'package.module.name'")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only a missing part of the path itself may be an attribute instead of a module.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[split:]:
            try:
                found = getattr(found, part)
            except AttributeError as error:
                raise ImportError(f"{path!r}: {part!r} is not in {name!r}") from error
        return found
    raise ImportError(f"{path!r}: there is no module {parts[0]!r} here")
