"""The bar on a terminal: what it shows, and that it shows nothing elsewhere."""

from __future__ import annotations

import io
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.utils import progress
from proxystore_hpc.utils.progress import LEAST, Bar, progress_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def every_call_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "80")


def test_a_bar_grows_and_ends_its_line() -> None:
    terminal = Terminal()
    with progress_of(True, 4 * LEAST, "field", terminal) as tell:
        assert tell is not None
        for quarter in range(5):
            tell(quarter * LEAST, 4 * LEAST)
    lines = terminal.getvalue().split("\r")[1:]
    assert len(lines) == 5
    assert [line.count("#") for line in lines] == sorted(line.count("#") for line in lines)
    assert "0 B of 256 MiB" in lines[0]
    assert "." not in lines[-1].partition("[")[2].partition("]")[0]
    assert lines[-1].startswith("field [")
    assert "100%  256 MiB of 256 MiB" in lines[-1]
    assert lines[-1].endswith("\n")


@pytest.mark.parametrize(
    ("wanted", "nbytes", "file"),
    [
        (True, 4 * LEAST, io.StringIO()),
        (True, LEAST - 1, Terminal()),
        (False, 4 * LEAST, Terminal()),
    ],
    ids=["no terminal", "small", "not asked for"],
)
def test_nothing_is_shown(wanted: bool, nbytes: int, file: io.StringIO) -> None:
    with progress_of(wanted, nbytes, "field", file) as tell:
        assert tell is None
    assert file.getvalue() == ""


def test_nothing_is_shown_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with progress_of(True, 4 * LEAST, "field") as tell:
        assert tell is None


def test_a_callable_of_the_caller_is_told_whatever_the_size() -> None:
    told: list[tuple[int, int]] = []
    with progress_of(lambda done, total: told.append((done, total)), 1, "field") as tell:
        assert tell is not None
        tell(1, 1)
    assert told == [(1, 1)]


def test_a_bar_that_was_never_told_writes_nothing() -> None:
    terminal = Terminal()
    Bar("field", terminal).close()
    assert terminal.getvalue() == ""


@given(
    columns=st.integers(1, 200),
    what=st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=60),
    total=st.integers(0, 1 << 50),
    share=st.floats(0, 1),
    seconds=st.floats(0, 1e7),
)
def test_a_line_never_wraps(
    columns: int, what: str, total: int, share: float, seconds: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        line = Bar(what, Terminal())._line(int(total * share), total, seconds)
    assert len(line) < max(columns, 2)
    assert not re.search(r"[\r\n]", line)


def test_threads_may_tell_at_once() -> None:
    terminal = Terminal()
    bar = Bar("field", terminal)

    def tell() -> None:
        for done in range(1, 101):
            bar(done, 100)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    bar.close()
    lines = terminal.getvalue().split("\r")[1:]
    assert len(lines) == 400
    assert all(line.startswith("field [") for line in lines)
