"""Keys in files: how an object is handed from a job to a shell, or to a laptop.

A key file is a line of JSON: its version, the store's name and the key. Nothing in it is executed.
Who can read it can get the object, so it is written for its owner alone.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from proxystore_hpc.exceptions import InvalidArgumentError, InvalidKeyError
from proxystore_hpc.key import Key
from proxystore_hpc.proxy import Proxy, get_factory
from proxystore_hpc.store.core import packed_bytes
from proxystore_hpc.store.factory import StoreFactory
from proxystore_hpc.store.utils import get_key

_VERSION = 1
_VERSION_FIELD = "proxystore_hpc_key"
_LONGEST = 64 << 10


class KeyFile(NamedTuple):
    """What a key file holds.

    Attributes:
        key: Key of the object.
        store_name: Name of its store.
    """

    key: Key
    store_name: str


def write_key_file(what: Key | Proxy[Any], store_name: str, path: str | os.PathLike[str]) -> None:
    """Writes a key file with mode 0600, in one step: readers see the old file or the new one.

    Args:
        what: A key, or the proxy of a stored object; it is not resolved.
        store_name: Name of the store, for a key; proxies know theirs.
        path: The file; it is replaced if it exists.

    Raises:
        InvalidKeyError: It is no key.
        ProxyStoreFactoryError: The proxy was not made by a store.
        InvalidArgumentError: It has a deserializer of its own, which is code and cannot be written.
        OSError: The file cannot be written.
    """
    key: Any = what
    if issubclass(type(what), Proxy):
        key = get_key(key)
        factory: Any = get_factory(what)  # type: ignore[arg-type]
        if factory.deserializer is not None:
            raise InvalidArgumentError(
                "the proxy has a deserializer of its own, which a key file cannot hold; export its "
                "key (get_key(proxy)) and pass the deserializer to get()"
            )
        store_name = factory.store_name
    packed = Key.parse(packed_bytes(key)).packed
    document = {
        _VERSION_FIELD: _VERSION,
        "store": store_name,
        "key": base64.b64encode(packed).decode("ascii"),
    }
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def read_key_file(path: str | os.PathLike[str]) -> KeyFile:
    """Reads what `Store.export` wrote.

    Raises:
        InvalidKeyError: It is no key file, it was damaged, or a later version wrote it.
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(_LONGEST + 1)
    try:
        document = json.loads(content.decode("utf-8"))
        version = document[_VERSION_FIELD]
        name, text = document["store"], document["key"]
        packed = base64.b64decode(text, validate=True)
    except (ValueError, TypeError, LookupError) as error:
        raise InvalidKeyError(
            f"{os.fspath(path)} is no key file, or a damaged one: Store.export writes them"
        ) from error
    if version != _VERSION or not isinstance(name, str):
        raise InvalidKeyError(
            f"{os.fspath(path)} is a key file of version {version!r}, and this proxystore_hpc "
            f"reads version {_VERSION}: update it here, or export the key with an older one"
        )
    return KeyFile(Key.parse(packed), name)


def load_key(path: str | os.PathLike[str]) -> Key:
    """The key in a key file. Raises as `read_key_file`."""
    return read_key_file(path).key


def load_proxy(path: str | os.PathLike[str]) -> Proxy[Any]:
    """An unresolved proxy of the object of a key file. Raises as `read_key_file`."""
    key, store_name = read_key_file(path)
    return Proxy(StoreFactory[Any](key, store_name))
