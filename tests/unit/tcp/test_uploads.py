"""Objects on their way to a server."""

from __future__ import annotations

import threading
import time

import pytest

from proxystore_hpc.exceptions import (
    InvalidArgumentError,
    OperationTimeoutError,
    StoreFullError,
)
from proxystore_hpc.tcp.limits import Limits, Staging
from proxystore_hpc.tcp.uploads import Uploads
from proxystore_hpc.tcp.wire import Put

CAPACITY = 1000
LIMITS = Limits(staging=CAPACITY, uploads=3, resume=5.0)


def request(number: int, length: int = 100, patience: float = 0.2) -> Put:
    return Put(b"token", b"address", length, 0, 0, patience, number.to_bytes(16, "little"))


@pytest.fixture
def staging():
    return Staging(CAPACITY)


@pytest.fixture
def uploads(staging):
    return Uploads(LIMITS, staging)


def begin(uploads, put):
    return uploads.begin(put, lambda: None)


def used(staging):
    return staging._used


def test_what_broke_off_goes_on_where_it_stopped(uploads, staging):
    put = request(1)
    upload = begin(uploads, put)
    assert not upload.known
    upload.missing[:40] = b"a" * 40
    upload.note(40)
    uploads.end(put.upload, upload)
    again = begin(uploads, put)
    assert again.known
    assert again.received == 40
    again.missing[:] = b"b" * 60
    assert bytes(again.memory) == b"a" * 40 + b"b" * 60
    assert used(staging) == 100


def test_what_was_stored_is_answered_again_and_takes_no_memory(uploads, staging):
    put = request(1)
    uploads.end(put.upload, begin(uploads, put), b"its key")
    assert used(staging) == 0
    again = begin(uploads, put)
    assert again.key == b"its key"
    uploads.end(put.upload, again, again.key)
    assert begin(uploads, put).key == b"its key"


def test_what_failed_is_forgotten(uploads, staging):
    put = request(1)
    uploads.fail(put.upload, begin(uploads, put))
    assert used(staging) == 0
    assert not begin(uploads, put).known


def test_a_number_stands_for_one_object(uploads):
    put = request(1)
    uploads.end(put.upload, begin(uploads, put))
    with pytest.raises(InvalidArgumentError, match="another object"):
        begin(uploads, request(1, length=101))


def test_the_later_connection_of_a_client_takes_over(uploads):
    put = request(1, patience=10.0)
    first = begin(uploads, put)
    told = threading.Event()
    with pytest.raises(OperationTimeoutError):
        begin(uploads, request(1))  # nobody lets go
    uploads.fail(put.upload, first)

    first = uploads.begin(put, told.set)

    def let_go():
        assert told.wait(10.0)
        first.note(7)
        uploads.end(put.upload, first)

    thread = threading.Thread(target=let_go)
    thread.start()
    assert begin(uploads, put).received == 7
    thread.join()


def test_what_rests_makes_room_the_oldest_first(uploads, staging):
    for number in (1, 2):
        put = request(number, 400)
        upload = begin(uploads, put)
        upload.note(1)
        uploads.end(put.upload, upload)
    busy = begin(uploads, request(3, 500))
    assert used(staging) == 900
    assert begin(uploads, request(2, 400)).known  # the first one went
    with pytest.raises(StoreFullError):
        begin(uploads, request(4, 200))  # those under way do not make room
    assert len(busy.memory) == 500
    with pytest.raises(StoreFullError):
        begin(uploads, request(5, CAPACITY + 1))
    assert used(staging) == 900


def test_as_many_are_kept_as_may_be(uploads, staging):
    for number in range(10):
        put = request(number, 10)
        uploads.end(put.upload, begin(uploads, put))
    assert used(staging) == 30
    assert not begin(uploads, request(6, 10)).known
    assert begin(uploads, request(9, 10)).known


def test_what_rests_for_long_is_forgotten(uploads, staging):
    half, done, busy = request(1), request(2), request(3)
    uploads.end(half.upload, begin(uploads, half))
    uploads.end(done.upload, begin(uploads, done), b"key")
    begin(uploads, busy)
    now = time.monotonic()
    uploads.tend(now + 4.0)
    assert used(staging) == 200
    uploads.tend(now + 60.0)
    assert used(staging) == 100
    assert begin(uploads, done).key is None
