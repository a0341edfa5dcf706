from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fixtures import make_peer  # noqa: F401
from support.nodes import Node, two_nodes_up


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes with a wire between them and nothing else, made by ci/two_nodes."""
    with two_nodes_up(tmp_path) as pair:
        yield pair
