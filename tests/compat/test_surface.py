"""What can be imported from ProxyStore can be imported from here, and takes the same arguments.

Every difference that is meant stands in this file, with its reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

proxystore = pytest.importorskip("proxystore")

NOT_HERE = {
    "proxystore.connectors.dim": "only warns that its connectors moved",
    "proxystore.endpoint": "servers of its own: its connector works in our stores",
    "proxystore.ex": "the extensions are another package",
    "proxystore.globus": "belongs to Globus: its connector works in our stores",
    "proxystore.p2p": "belongs to the endpoints",
    "proxystore.utils.tasks": "belongs to the endpoints",
}
"""Modules that are not wanted here."""

DIFFERENT = {
    "proxystore.store.base.Store": {"connector": "may be left out: then memory of our own is used"},
    "proxystore.connectors.redis.RedisConnector": {"hostname": "has a default", "port": "too"},
}
"""Parameters that differ, by what they belong to."""

TYPE_VARIABLES = {
    *("BaseModel", "BaseModelT", "ConnectorT", "FutureT", "KeyT", "LifetimeT", "NonProxiableT"),
    *("P", "R", "T", "ValueT"),
}
INTERNAL = {
    "proxystore.connectors.globus.GLOBUS_MKDIR_EXISTS_ERROR_CODE",
    "proxystore.mypy_plugin.PROXY_TYPES",
    "proxystore.mypy_plugin.proxy_attribute_access",
    "proxystore.proxy.CO_ITERABLE_COROUTINE",
    "proxystore.proxy.ProxyMetaType",
    "proxystore.proxy.as_metaclass",
    "proxystore.store.Connector",
    "proxystore.store.Proxy",
    "proxystore.store.get_factory",
    "proxystore.stream.ExperimentalWarning",
    "proxystore.stream.events.EndOfStreamEvent.from_dict",
    "proxystore.stream.events.NewObjectEvent.from_dict",
    "proxystore.stream.events.NewObjectKeyEvent.from_dict",
    "proxystore.stream.events.EventBatch.from_dict",
    "proxystore.stream.events.dict_to_event",
    "proxystore.stream.events.event_to_dict",
}
"""Names without an underscore that no user imports."""


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(proxystore.__path__, "proxystore.")]
    return [
        name
        for name in found
        if not any(name == left_out or name.startswith(f"{left_out}.") for left_out in NOT_HERE)
        and not any(part.startswith("_") for part in name.split("."))
    ]


def load(name: str) -> Any:
    """A module of theirs, skipped if a library is missing that it needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} cannot be imported: {error}")


def ours_of(name: str) -> Any:
    """Our module for one of theirs."""
    return importlib.import_module(name.replace("proxystore", "proxystore_hpc", 1))


def names_of(module: Any) -> Iterator[str]:
    """What a module of theirs offers: what it defines, and what its `__init__` collects."""
    collects = hasattr(module, "__path__")
    for name, value in vars(module).items():
        home = getattr(value, "__module__", module.__name__)
        if name.startswith("_") or inspect.ismodule(value) or name in TYPE_VARIABLES:
            continue
        if f"{module.__name__}.{name}" in INTERNAL or name in ("annotations", "TYPE_CHECKING"):
            continue
        ours = isinstance(home, str) and home.startswith("proxystore")
        if home == module.__name__ or (collects and ours):
            yield name


@pytest.mark.parametrize("name", modules())
def test_a_module_and_its_names_are_here(name):
    theirs = load(name)
    ours = ours_of(name)
    missing = [member for member in names_of(theirs) if not hasattr(ours, member)]
    assert not missing


def public_callables(module: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    for name in names_of(module):
        theirs, mine = getattr(module, name), getattr(ours, name, None)
        path = f"{module.__name__}.{name}"
        if mine is None or mine is theirs:
            continue
        if inspect.isfunction(theirs):
            yield path, theirs, mine
        elif inspect.isclass(theirs) and not issubclass(theirs, Warning):
            yield path, theirs, mine
            for method, function in vars(theirs).items():
                if f"{path}.{method}" in INTERNAL:
                    continue
                if not method.startswith("_") and callable(getattr(theirs, method)):
                    mine_too = getattr(mine, method, None)
                    assert mine_too is not None, f"{path}.{method} is not here"
                    yield f"{path}.{method}", getattr(theirs, method), mine_too
                elif not method.startswith("_") and isinstance(function, property):
                    assert hasattr(mine, method), f"{path}.{method} is not here"


def parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None  # a C type, or a protocol


def difference(theirs: Any, mine: Any, allowed: dict[str, str]) -> str | None:
    """How a call that theirs takes could fail with ours."""
    here = parameters(mine)
    there = parameters(theirs)
    if here is None or there is None:
        return None
    takes_all = {p.kind for p in here.values()}
    positional = [
        name for name, p in here.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    place = 0
    for name, parameter in there.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in allowed:
            place += parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            continue
        found = here.get(name)
        if found is None:
            if inspect.Parameter.VAR_KEYWORD not in takes_all:
                return f"takes no {name!r}"
            continue
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            if inspect.Parameter.VAR_POSITIONAL not in takes_all and (
                place >= len(positional) or positional[place] != name
            ):
                return f"{name!r} is not at position {place}"
            place += 1
        if parameter.default is not parameter.empty and found.default is found.empty:
            return f"{name!r} has to be given"
    for name, parameter in here.items():
        collects = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name not in there and parameter.default is parameter.empty and not collects:
            return f"{name!r} has to be given, which theirs do not know"
    return None


@pytest.mark.parametrize("name", modules())
def test_what_theirs_take_ours_take_too(name):
    theirs = load(name)
    ours = ours_of(name)
    wrong = {}
    for path, their_function, our_function in public_callables(theirs, ours):
        found = difference(their_function, our_function, DIFFERENT.get(path, {}))
        if found:
            wrong[path] = found
    assert not wrong


def test_the_differences_that_are_named_exist():
    for path, allowed in DIFFERENT.items():
        module, _, name = path.rpartition(".")
        theirs = getattr(load(module), name)
        assert set(allowed) <= set(inspect.signature(theirs).parameters)
    for name in NOT_HERE:
        assert importlib.util.find_spec(name) is not None
