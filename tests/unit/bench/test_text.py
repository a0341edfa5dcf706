"""Sizes as the tables have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.bench.text import size
from proxystore_hpc.utils.sizes import parse_size


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (8, "8 B"),
        (1000, "1 kB"),
        (1024, "1 KiB"),
        (1536, "1536 B"),
        (65536, "64 KiB"),
        (10**8, "100 MB"),
        (64 << 20, "64 MiB"),
        (10**9, "1 GB"),
        (1 << 30, "1 GiB"),
    ],
)
def test_the_unit_that_leaves_the_smallest_number(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


@given(st.integers(0, 1 << 50))
def test_nothing_is_rounded(nbytes: int) -> None:
    assert parse_size(size(nbytes)) == nbytes
