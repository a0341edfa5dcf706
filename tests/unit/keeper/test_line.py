"""What a keeper takes from the connection of an owner."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from proxystore_hpc.exceptions import ProtocolError
from proxystore_hpc.keeper.line import Line

HEADER = struct.Struct("<IIHHIQ")


def frame(kind: int, body: bytes, fds: int = 0) -> bytes:
    return HEADER.pack(0x43505350, len(body), kind, fds, 0, 0) + body


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Line]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    line = Line(ours, {"store": "s"})
    with theirs:
        yield theirs, line
    line.close()


def hand_over(owner: socket.socket, data: bytes, count: int) -> list[int]:
    """Sends that many descriptors of pipes; returns the other ends of them."""
    pipes = [os.pipe() for _ in range(count)]
    socket.send_fds(owner, [data], [read for read, _ in pipes])
    for read, _ in pipes:
        os.close(read)
    return [write for _, write in pipes]


def is_open(write: int) -> bool:
    """Whether somebody holds the other end."""
    try:
        os.write(write, b"x")
    except BrokenPipeError:
        return False
    return True


def test_an_estate(ends):
    owner, line = ends
    writes = hand_over(owner, frame(1, b"identity", 3), 3)
    writes += hand_over(owner, frame(2, struct.pack("<I", 5), 1), 1)
    writes += hand_over(owner, frame(3, struct.pack("<Q", 1), 1), 1)
    writes += hand_over(owner, frame(3, struct.pack("<Q", 2), 1), 1)
    owner.sendall(frame(5, b"{}") + frame(6, b"outside") + frame(4, struct.pack("<Q", 1)))
    assert line.read()
    assert line.complete
    assert [is_open(write) for write in writes] == [True] * 4 + [False, True]
    estate = line.take_estate()
    assert estate["identity"] == b"identity"
    assert estate["config"] == "{}"
    assert estate["outside"] == b"outside"
    assert [number for number, _ in estate["segments"]] == [5]
    fds = [estate["table"], estate["claims"], *estate["listeners"], *estate["pin_tables"]]
    fds.append(estate["segments"][0][1])
    assert len(set(fds)) == 5
    line.close()
    assert sum(is_open(write) for write in writes) == 5
    for fd in [*fds, *writes]:
        os.close(fd)


def test_it_comes_in_any_pieces(ends):
    owner, line = ends
    for byte in frame(5, b"configuration") + frame(6, b"outside"):
        owner.sendall(bytes([byte]))
        assert line.read()
    assert line.take_estate()["config"] == "configuration"


def test_what_was_cut_off_is_left_out(ends):
    owner, line = ends
    (write,) = hand_over(owner, frame(2, struct.pack("<I", 1), 1)[:-1], 1)
    owner.shutdown(socket.SHUT_WR)
    assert not line.read()
    assert not line.complete
    assert line.take_estate()["segments"] == []
    line.close()
    assert not is_open(write)
    os.close(write)


@pytest.mark.parametrize(
    "garbage",
    [
        b"x" * 24,
        frame(77, b""),
        frame(2, struct.pack("<I", 1), 1),  # without its descriptor
        HEADER.pack(0x43505350, 1 << 30, 1, 0, 0, 0),
    ],
)
def test_garbage(ends, garbage):
    owner, line = ends
    owner.sendall(garbage)
    with pytest.raises(ProtocolError):
        line.read()
