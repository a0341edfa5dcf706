"""Exceptions on their way to the caller."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import (
    EngineClosedError,
    ObjectMissingError,
    OperationTimeoutError,
    PeerError,
    PeerRestartedError,
    RemoteError,
    RpcCancelledError,
    RpcError,
    UnknownProviderError,
    UnknownRpcError,
    from_code,
)
from proxystore_hpc.rpc import raising


class PlainError(Exception):
    pass


class WithAttributesError(Exception):
    def __init__(self, message, code):
        super().__init__(message, code)
        self.code = code


class NeedsMoreError(Exception):
    """Cannot be made of its `args`."""

    def __init__(self, first, second):
        super().__init__(f"{first}-{second}")


class NoPickleError(Exception):
    def __reduce__(self):
        raise TypeError("not me")


class NoTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class SlottedError(Exception):
    __slots__ = ()

    def __setattr__(self, name, value):
        raise AttributeError(name)


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return raising.revive(raising.encode(caught), "peer1")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("key"),
        OSError(2, "no such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        PlainError("plain"),
        WithAttributesError("message", 7),
        ObjectMissingError("missing", key="k"),
        OperationTimeoutError("late", timeout=2.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_type_stays(error):
    got = raised(error)
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert "test_raising" in got.remote_traceback
    assert got.peer == "peer1"
    if sys.version_info >= (3, 11):
        assert "test_raising" in got.__notes__[-1]


def test_an_error_without_a_text():
    assert type(raised(NoTextError("message"))) is NoTextError


def test_attributes_stay():
    assert raised(WithAttributesError("message", 7)).code == 7
    assert raised(OSError(2, "no")).errno == 2
    assert raised(ObjectMissingError("missing", key="k")).key == "k"


@pytest.mark.parametrize(
    "error",
    [
        NeedsMoreError(1, 2),
        NoPickleError("message"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(1),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_others_arrive_as_remote_errors(error):
    got = raised(error)
    assert type(got) is RemoteError
    assert got.type_name.endswith(type(error).__name__)
    assert got.type_name in str(got)
    assert "test_raising" in got.remote_traceback
    assert got.peer == "peer1"


def test_a_class_that_takes_no_attributes():
    assert type(raised(SlottedError("x"))) is RemoteError


def test_a_remote_error_of_a_further_peer_stays_one():
    inner = raised(SystemExit(3))
    got = raised(inner)
    assert type(got) is RemoteError
    assert got.type_name == "SystemExit"
    assert got.peer == "peer1"


def test_nothing_is_imported_for_an_error():
    code = (
        "import sys, wave\n"
        "from proxystore_hpc.rpc import raising\n"
        "sys.stdout.buffer.write(raising.encode(wave.Error('sound')))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=50)
    assert "wave" not in sys.modules
    got = raising.revive(done.stdout, "p")
    assert type(got) is RemoteError
    assert got.type_name == "wave.Error"
    assert got.message == "sound"
    assert "wave" not in sys.modules
    import wave

    assert type(raising.revive(done.stdout, "p")) is wave.Error


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\nexec\n(S'1'\ntR.",
        b"I1\n.",
        b"garbage",
    ],
)
def test_what_is_no_exception_is_not_raised(stream):
    body = struct.pack("<III", 1, 1, 1) + b"tmw" + stream
    got = raising.revive(body, "p")
    assert type(got) is RemoteError
    assert (got.type_name, got.message, got.remote_traceback) == ("t", "m", "w")


CODES = {
    "no_method": UnknownRpcError,
    "no_provider": UnknownProviderError,
    "cancelled": RpcCancelledError,
    "replaced": PeerRestartedError,
    "engine_closed": EngineClosedError,
    "failed": RemoteError,
}


@pytest.mark.parametrize("code", CODES)
def test_codes_of_the_core(code):
    error = from_code(code, "what happened", peer="p")
    assert type(error) is CODES[code]
    assert str(error) == "what happened"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.peer) == (CODES[code], "what happened", "p")
    assert isinstance(error, PeerError if code == "replaced" else RpcError)


@given(st.binary(max_size=60))
def test_garbage_is_a_remote_error(body):
    assert isinstance(raising.revive(body, "p"), Exception)
