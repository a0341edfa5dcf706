from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from proxystore_hpc import exceptions
from proxystore_hpc.exceptions import (
    ConnectorError,
    DoorUnavailableError,
    InvalidArgumentError,
    InvalidKeyError,
    MissingLibraryError,
    NonProxiableTypeError,
    ObjectError,
    ObjectEvictedError,
    ObjectMissingError,
    OffsetGoneError,
    OperationTimeoutError,
    OwnerGoneError,
    PeerError,
    ProxyResolveError,
    ProxyResolveMissingKeyError,
    ProxyStoreHpcError,
    StoreError,
    StoreFullError,
    SystemCallError,
    TopicFullError,
    from_code,
)

CODES = [
    "invalid",
    "not_found",
    "evicted",
    "owner_gone",
    "unreached",
    "peer_lost",
    "timed_out",
    "full",
    "closed",
    "denied",
    "protocol",
    "unavailable",
    "changed",
    "pinned",
    "borrowed",
    "moved",
    "forked",
    "system",
]

EXAMPLES = [
    StoreFullError("full", 10, 100, 95, 5),
    ObjectMissingError("missing", key=("a", 1)),
    OperationTimeoutError("late", timeout=2.5),
    DoorUnavailableError("ucx", "no library: pip install libucx-cu12"),
    InvalidKeyError("bad", key=b"\0"),
    OwnerGoneError("gone", peer="node1:55"),
    ProxyResolveError("failed", ObjectEvictedError("evicted", key=3)),
    ProxyResolveMissingKeyError(("k", 1), dict, "sim", owner="node1:55"),
    SystemCallError("mmap failed", errno=12),
    ConnectorError("full", connector="FileConnector", key=("a",)),
    TopicFullError("full", topic="t", items=3, nbytes=30, timeout=0.5),
    OffsetGoneError("gone", topic="t", oldest=4, end=9),
    MissingLibraryError("no redis", extra="redis"),
]


def test_every_error_has_the_base_and_is_exported():
    for name, cls in inspect.getmembers(exceptions, inspect.isclass):
        if cls.__module__ != exceptions.__name__:
            continue
        assert issubclass(cls, ProxyStoreHpcError)
        assert name in exceptions.__all__
        assert cls.__doc__


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_pickling_keeps_type_message_and_attributes(error):
    error.note = "kept"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    for name, value in vars(error).items():
        other = getattr(again, name)
        assert str(other) == str(value)
        assert type(other) is type(value)


def test_errors_cross_processes():
    code = (
        "import pickle, sys\n"
        "from proxystore_hpc.exceptions import ProxyResolveMissingKeyError\n"
        "error = ProxyResolveMissingKeyError('k', dict, 'sim')\n"
        "sys.stdout.buffer.write(pickle.dumps(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=50)
    with pytest.raises(ProxyResolveMissingKeyError, match="'sim'") as caught:
        raise pickle.loads(done.stdout)
    assert caught.value.key == "k"


@pytest.mark.parametrize("code", CODES, ids=lambda code: f"code-{code}")
def test_every_code_of_the_core_has_a_class(code):
    error = from_code(code, "what happened", key="k")
    assert type(error) is not ProxyStoreHpcError
    assert "what happened" in str(error)
    assert error.key == "k"
    assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_codes_carry_details():
    full = from_code("full", "no room", requested=8, capacity=4, used=3, largest_free=1)
    assert isinstance(full, StoreFullError)
    assert (full.requested, full.capacity, full.used, full.largest_free) == (8, 4, 3, 1)
    door = from_code("unavailable", "no device", door="ucx")
    assert isinstance(door, DoorUnavailableError)
    assert (door.door, door.reason) == ("ucx", "no device")
    assert str(door) == "the ucx door cannot be used: no device"
    assert str(from_code("unavailable", "none can be used")) == "none can be used"


def test_invalid_arguments_and_keys():
    assert type(from_code("invalid", "m")) is InvalidArgumentError
    assert type(from_code("invalid", "m", key=b"")) is InvalidKeyError


def test_an_unknown_code_still_gives_an_error():
    assert type(from_code("new", "m")) is ProxyStoreHpcError


def test_errors_are_caught_as_the_built_in_ones():
    assert isinstance(OperationTimeoutError("m"), TimeoutError)
    assert isinstance(InvalidKeyError("m"), ValueError)
    assert isinstance(ObjectMissingError("m"), LookupError)
    assert isinstance(NonProxiableTypeError("m"), TypeError)


def test_missing_evicted_and_owner_gone_are_three_errors():
    assert not issubclass(ObjectMissingError, ObjectEvictedError)
    assert not issubclass(ObjectEvictedError, ObjectMissingError)
    assert issubclass(ObjectEvictedError, ObjectError)
    assert not issubclass(OwnerGoneError, StoreError)
    assert issubclass(OwnerGoneError, PeerError)


def test_a_missing_key_is_named_with_its_store_and_owner():
    error = ProxyResolveMissingKeyError("the-key", dict, "sim", owner="node1:55")
    for part in ("the-key", "dict", "'sim'", "node1:55"):
        assert part in str(error)
    assert (error.key, error.store_type, error.store_name) == ("the-key", dict, "sim")
    assert "should hold" not in str(ProxyResolveMissingKeyError("k", dict, "s"))
