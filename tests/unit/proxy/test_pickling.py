"""What a proxy is as a pickle, and what comes out of it."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import proxystore_hpc
from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import Proxy, get_factory, is_resolved, resolve, unpickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class KeyFactory:
    """Like the factory of a store: all it holds is a key of 170 bytes."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __call__(self) -> int:
        return len(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyFactory, (self.key,)


class FlatFactory(KeyFactory):
    """Makes factory and proxy in one function."""

    def __reduce_proxy__(self, *defaults: Any) -> tuple[Any, ...]:
        return flat_proxy, (self.key, *defaults)


def flat_proxy(key: bytes, *defaults: Any) -> Proxy[int]:
    return unpickle(FlatFactory(key), *defaults)


def text_factory() -> str:
    return "text"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_factory_travels(protocol: int) -> None:
    proxy = Proxy(text_factory, target="x" * 10_000)
    assert is_resolved(proxy)
    data = pickle.dumps(proxy, protocol)
    assert len(data) < 200
    result = pickle.loads(data)
    assert type(result) is Proxy
    assert not is_resolved(result)
    assert get_factory(result) is text_factory
    assert result == "text"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("factory_type", [KeyFactory, FlatFactory])
@pytest.mark.parametrize("target", [None, [1], "text", 1.5, {1: 2}, range(3), (1, "a"), Path()])
def test_defaults_travel(protocol: int, factory_type: type[KeyFactory], target: Any) -> None:
    proxy = Proxy(factory_type(b"k" * 170), cache_defaults=True, target=target)
    result = pickle.loads(pickle.dumps(proxy, protocol))
    assert not is_resolved(result)
    assert get_factory(result).key == b"k" * 170
    assert type(get_factory(result)) is factory_type
    assert result.__proxy_default_class__ is proxy.__proxy_default_class__
    if isinstance(proxy.__proxy_default_hash__, Exception):
        with pytest.raises(TypeError, match=str(proxy.__proxy_default_hash__)):
            hash(result)
    else:
        assert result.__proxy_default_hash__ == proxy.__proxy_default_hash__
    if target is not None:
        assert isinstance(result, type(target))
        assert not is_resolved(result)
    # A second trip changes nothing.
    assert pickle.dumps(result, protocol) == pickle.dumps(proxy, protocol)


@pytest.mark.parametrize("factory_type", [KeyFactory, FlatFactory])
def test_size(factory_type: type[KeyFactory]) -> None:
    """What a pickle holds beside the key and the names of the factory's module and class."""
    key = b"k" * 170
    proxy = Proxy(factory_type(key), cache_defaults=True, target=[1])
    data = pickle.dumps(proxy, 5)
    assert len(data) - len(key) - len(__name__) - len("FlatFactory") < 80


def make_local() -> object:
    class Local:
        pass

    return Local()


@pytest.mark.parametrize("target", [len, make_local, make_local(), iter([])])
def test_class_that_cannot_be_pickled_stays_behind(target: Any) -> None:
    proxy = Proxy(text_factory, cache_defaults=True, target=target)
    result = pickle.loads(pickle.dumps(proxy))
    assert result.__proxy_default_class__ is None
    assert result == "text"


def test_unusual_hash_error_travels_as_it_is() -> None:
    proxy = Proxy(text_factory)
    proxy.__proxy_default_hash__ = ValueError("no hash of this")
    result = pickle.loads(pickle.dumps(proxy))
    with pytest.raises(ValueError, match="no hash of this"):
        hash(result)
    assert not is_resolved(result)


def in_another_process(data: bytes, seed: str) -> str:
    program = (
        "import pickle, sys\n"
        "from proxystore_hpc.proxy import is_resolved\n"
        "p = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "assert isinstance(p, str) and not is_resolved(p)\n"
        "same = hash(p) == hash('text')\n"
        "print(same, is_resolved(p))\n"
    )
    root = str(Path(proxystore_hpc.__file__).resolve().parents[1])
    run = subprocess.run(
        [sys.executable, "-c", program, data.hex()],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_hash_of_a_string_is_right_in_every_process(seed: str) -> None:
    """Strings hash differently from process to process; a cached hash must not be wrong there."""
    proxy = Proxy(SimpleFactory("text"), cache_defaults=True, target="text")
    assert in_another_process(pickle.dumps(proxy), seed) == "True True"


def test_foreign_hash_is_dropped() -> None:
    proxy = Proxy(text_factory, cache_defaults=True, target="text")
    _, (factory, cls, (value, token)) = proxy.__reduce__()
    assert unpickle(factory, cls, (value, token)).__proxy_default_hash__ == value
    assert unpickle(factory, cls, (value, token ^ 1)).__proxy_default_hash__ is None


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((), TypeError),
        ((1,), TypeError),
        ((list, None, None, None), TypeError),
        ((list, "os.system"), ValueError),
        ((list, list, (1,)), ValueError),
        ((list, list, (1, "x")), TypeError),
    ],
)
def test_garbage_is_refused(args: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        unpickle(*args)


def test_proxystore_form_is_accepted() -> None:
    proxy: Any = unpickle(text_factory, str, 17)
    assert isinstance(proxy, str)
    assert hash(proxy) == 17
    assert not is_resolved(proxy)
    assert unpickle(text_factory, None, None) == "text"


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("target", ["text", [1, [2]], {"a": 1}])
def test_copies_are_unresolved_proxies(copier: Any, target: Any) -> None:
    proxy = Proxy(SimpleFactory(target), cache_defaults=True, target=target)
    resolve(proxy)
    result = copier(proxy)
    assert isinstance(result, Proxy)
    assert not is_resolved(result)
    assert result.__proxy_default_class__ is type(target)
    assert result == target


def test_copying_does_not_resolve() -> None:
    proxy = Proxy(text_factory)
    copy.copy(proxy)
    copy.deepcopy(proxy)
    copy.deepcopy({"p": [proxy]})
    pickle.dumps(proxy)
    assert not is_resolved(proxy)


def test_deepcopy_of_a_target_with_a_method_for_it() -> None:
    class Deep:
        def __deepcopy__(self, memo: Any) -> str:
            return "copied"

    proxy = Proxy(SimpleFactory(Deep()))
    resolve(proxy)
    result: Any = copy.deepcopy(proxy)
    assert isinstance(result, Proxy)
    assert not is_resolved(result)


def test_factory_that_cannot_be_pickled() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(Proxy(lambda: 1))
    assert pickle.loads(cloudpickle.dumps(Proxy(lambda: 1))) == 1


def test_proxy_without_factory_cannot_be_pickled() -> None:
    with pytest.raises(AttributeError, match="not initialized"):
        pickle.dumps(Proxy.__new__(Proxy))


def test_shared_proxies_stay_shared() -> None:
    proxy = Proxy(text_factory)
    first, second = pickle.loads(pickle.dumps([proxy, proxy]))
    assert first is second
