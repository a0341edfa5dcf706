"""`proxystore-hpc get`: an object into a file."""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from proxystore_hpc.cli import npy, remote
from proxystore_hpc.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from proxystore_hpc.key import Key
    from proxystore_hpc.serialize import ObjectInfo
    from proxystore_hpc.store import Store

FORMATS = ("npy", "bin", "pkl")
_DESCRIPTION = """\
Gets the object of a key file, which Store.export wrote, into a file. Its ending says how:

  .npy  an array in NumPy's format; NumPy is not needed here
  .bin  the bytes of an array, of bytes or of a buffer, and nothing else
  .pkl  any object, as Python's pickle; it is unpickled here first, so trust who stored it

A file that exists is not replaced without --force, and appears only when it is complete. Objects
of 64 MiB or more that come over TCP show a bar on a terminal."""
_EPILOG = """\
examples:
  proxystore-hpc get field.key -o field.npy
  proxystore-hpc get field.key -o - --format bin | xxd | head
  PROXYSTORE_HPC_TCP_MAP=login1:8443=localhost:8443 proxystore-hpc get field.key -o field.npy

exit status: 0 if the object was written, 1 if not, 2 for wrong arguments"""


def add_command(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = remote.add_parser(
        commands,
        "get",
        help="get the object of a key file into a file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("keyfile", metavar="KEYFILE")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the file; '-' for standard output"
    )
    parser.add_argument("--format", choices=FORMATS, help="instead of what the ending says")
    parser.add_argument("-f", "--force", action="store_true", help="replace a file that exists")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Gets the object; returns the exit status."""
    from proxystore_hpc.store.keyfile import read_key_file

    form = format_of(options.output, options.format)
    key, store_name = read_key_file(options.keyfile)
    if options.output == remote.STANDARD:
        with remote.open_store(store_name, options.timeout) as store:
            write(store, key, form, sys.stdout.buffer, not options.quiet)
            sys.stdout.buffer.flush()
        return 0
    target = Path(options.output)
    if target.exists() and not options.force:
        raise InvalidArgumentError(f"{target} exists; --force replaces it")
    with (
        remote.open_store(store_name, options.timeout) as store,
        appearing(target) as file,
    ):
        write(store, key, form, file, not options.quiet)
    return 0


def format_of(output: str, named: str | None) -> str:
    """How to write: as named, else by the ending of the file.

    Raises:
        InvalidArgumentError: The ending says nothing.
    """
    if named is not None:
        return named
    ending = Path(output).suffix[1:]
    if ending in FORMATS:
        return ending
    raise InvalidArgumentError(
        f"the format of {output!r} is not known: end it in {', '.join('.' + f for f in FORMATS)}, "
        "or name it with --format"
    )


def write(store: Store, key: Key, form: str, file: BinaryIO, progress: bool) -> None:
    """Writes the object in a format.

    Raises:
        InvalidArgumentError: It has no such format.
    """
    info = store.describe(key)
    if form == "npy" and info.kind == "ndarray":
        write_raw(store, key, info, npy.header(info), file, progress)
    elif form == "bin":
        if not info.is_raw:
            raise InvalidArgumentError(
                f"the object is not plain bytes ({remote.described(info)}): get it as .pkl"
            )
        write_raw(store, key, info, b"", file, progress)
    else:
        if info.kind == "opaque":
            store.adopt(key)  # for its deserializer
        obj = store.get_or_raise(key, progress=progress)
        if form == "pkl":
            pickle.dump(obj, file, protocol=5)
        else:
            _write_unusual_array(obj, info, file)


def write_raw(
    store: Store, key: Key, info: ObjectInfo, head: bytes, file: BinaryIO, progress: bool
) -> None:
    """Writes an object that is one buffer, straight into the file where that can be mapped."""
    if not info.nbytes or not _is_fresh(file):
        file.write(head)
        body = bytearray(info.nbytes)
        store.get_into(key, body, progress=progress)
        file.write(body)
        return
    length = len(head) + info.nbytes
    file.truncate(length)
    if hasattr(os, "posix_fallocate"):
        # Where the disk is full, writing to the mapping would end this process by a signal.
        os.posix_fallocate(file.fileno(), 0, length)
    with mmap.mmap(file.fileno(), length) as memory, memoryview(memory) as view:
        view[: len(head)] = head
        with view[len(head) :] as data:
            store.get_into(key, data, progress=progress)


def _is_fresh(file: BinaryIO) -> bool:
    """Whether it is a file of ours, that nobody else reads yet."""
    return file.seekable() and file.readable()


def _write_unusual_array(obj: Any, info: ObjectInfo, file: BinaryIO) -> None:
    cls = type(obj)
    if cls.__module__.partition(".")[0] != "numpy" or not hasattr(obj, "__array_interface__"):
        raise InvalidArgumentError(
            f"the object is no array ({remote.described(info)}, a {cls.__name__}): get it as .pkl"
        )
    import numpy as np

    try:
        np.lib.format.write_array(file, np.asanyarray(obj), allow_pickle=False)
    except ValueError as error:
        raise InvalidArgumentError(
            f"the array cannot be written: {error}; get it as .pkl"
        ) from error


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the body has ended, and vanishes if that raised."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
