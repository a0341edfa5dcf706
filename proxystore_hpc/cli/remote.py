"""What the commands that work with objects have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.utils.sizes import format_size

if TYPE_CHECKING:
    from proxystore_hpc.serialize import ObjectInfo
    from proxystore_hpc.store import Store

TOKEN_VARIABLE = "PROXYSTORE_HPC_PUT_TOKEN"
TIMEOUT = 60.0
STANDARD = "-"


def add_parser(commands: Any, name: str, **texts: str) -> argparse.ArgumentParser:
    """A subparser whose description and examples are printed as they are written."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"give up after this long (default {TIMEOUT:.0f})",
    )
    return parser


@contextmanager
def open_store(name: str, timeout: float, token: str | None = None) -> Iterator[Store]:
    """A store of this process through which others' objects are reached."""
    from proxystore_hpc.store import Store

    options = {"put_token": token} if token else {}
    with Store(name, timeout=timeout, options=options) as store:
        yield store


def put_token(file: str | None) -> str | None:
    """The token that servers want to see: of a file, else of the environment.

    Raises:
        ConfigError: The file has none.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    text = Path(file).read_text("utf-8").strip()
    if not text:
        raise ConfigError(f"{file} is empty: it should hold the put_token of the server")
    return text


def described(info: ObjectInfo) -> str:
    """An object in a few words: `ndarray <f8 (3, 4), 96 B`."""
    words = [info.kind]
    if info.dtype is not None:
        words.append(info.dtype)
    if info.shape is not None:
        words.append(str(info.shape))
    return f"{' '.join(words)}, {format_size(info.nbytes)}"
