"""`proxystore-hpc ls`: what the objects of key files are, and whether they are there."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from proxystore_hpc.cli import remote
from proxystore_hpc.exceptions import (
    ObjectEvictedError,
    ObjectMissingError,
    OperationTimeoutError,
    OwnerGoneError,
    OwnerUnreachedError,
    ProxyStoreHpcError,
)
from proxystore_hpc.utils.sizes import format_size

if TYPE_CHECKING:
    from proxystore_hpc.key import Key
    from proxystore_hpc.serialize import ObjectInfo
    from proxystore_hpc.store import Store

_DESCRIPTION = """\
Prints, for each key file, the kind, type, shape and size of the object, the owner and the store
that hold it, and whether it is there. Fetches a few bytes of each."""
_EPILOG = """\
examples:
  proxystore-hpc ls *.key
  proxystore-hpc ls --json field.key | jq '.[0].shape'

exit status: 0 if all objects are there, 1 if one is not, 2 for wrong arguments"""


@dataclass
class Row:
    """One object.

    Attributes:
        file: The key file.
        state: `here`, `evicted`, `missing`, `owner gone`, `not stored yet` or `unknown`.
        store: Name of the store.
        owner: First digits of the owner's id.
        kind: Kind of the object, `None` if it is not there; so are the next ones.
        dtype: NumPy's text for the type of an array.
        shape: Shape of an array.
        nbytes: Length in bytes.
        reason: Why it is not there.
    """

    file: str
    state: str
    store: str | None = None
    owner: str | None = None
    kind: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    nbytes: int | None = None
    reason: str | None = None


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = remote.add_parser(
        commands,
        "ls",
        help="show what the objects of key files are",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("keyfiles", metavar="KEYFILE", nargs="+")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table; returns the exit status."""
    from proxystore_hpc.store.keyfile import read_key_file

    rows: list[Row] = []
    stores: dict[str, Store] = {}
    with ExitStack() as stack:
        for file in options.keyfiles:
            try:
                key, name = read_key_file(file)
                if name not in stores:
                    stores[name] = stack.enter_context(remote.open_store(name, options.timeout))
                rows.append(look(stores[name], key, file))
            except (ProxyStoreHpcError, OSError) as error:
                rows.append(Row(file, "unknown", reason=str(error)))
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else table(rows))
    return 0 if all(row.state == "here" for row in rows) else 1


def look(store: Store, key: Key, file: str) -> Row:
    """What can be said of an object."""
    row = Row(file, "here", store.name, key.owner)
    try:
        info: ObjectInfo = store.describe(key)
    except ProxyStoreHpcError as error:
        row.state, row.reason = _state(error, key), str(error)
        return row
    row.kind, row.dtype, row.shape, row.nbytes = info.kind, info.dtype, info.shape, info.nbytes
    return row


def _state(error: ProxyStoreHpcError, key: Key) -> str:
    if isinstance(error, ObjectEvictedError):
        return "evicted"
    if isinstance(error, ObjectMissingError):
        return "not stored yet" if key.deferred else "missing"
    if isinstance(error, OwnerGoneError) and not (
        isinstance(error, OwnerUnreachedError) and key.outside
    ):
        return "owner gone"
    if isinstance(error, OperationTimeoutError) and key.deferred:
        return "not stored yet"
    return "unknown"


def table(rows: list[Row]) -> str:
    """The rows as text for people, the reasons below."""
    cells = [("FILE", "STATE", "KIND", "TYPE", "SHAPE", "SIZE", "OWNER", "STORE")]
    for row in rows:
        cells.append(
            (
                row.file,
                row.state,
                row.kind or "",
                row.dtype or "",
                "x".join(map(str, row.shape)) if row.shape else "",
                "" if row.nbytes is None else format_size(row.nbytes),
                row.owner or "",
                row.store or "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, *(f"{row.file}: {row.reason}" for row in rows if row.reason)])
