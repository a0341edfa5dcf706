"""What makes a class a provider."""

from __future__ import annotations

import pytest

from proxystore_hpc.exceptions import InvalidArgumentError
from proxystore_hpc.rpc import Provider, Request, rpc
from proxystore_hpc.rpc.handlers import wants_request
from proxystore_hpc.rpc.provider import procedures_of


class Base(Provider):
    @rpc
    def one(self):
        return 1

    @rpc("second", pool="io", codec="raw")
    def two(self, data):
        return data

    def three(self):
        return 3


class Derived(Base):
    def one(self):
        return 11

    @rpc(one_way=True)
    def four(self):
        return 4


class Named(Derived, service="name"):
    pass


def names(cls):
    return {attribute: name for attribute, name, _ in procedures_of(cls)}


def test_names():
    assert names(Base) == {"one": "Base.one", "two": "second"}
    assert names(Derived) == {"one": "Derived.one", "two": "second", "four": "Derived.four"}
    assert names(Named)["one"] == "name.one"


def test_options():
    options = {attribute: options for attribute, _, options in procedures_of(Derived)}
    assert options["two"] == {"pool": "io", "one_way": False, "codec": "raw"}
    assert options["four"] == {"pool": "default", "one_way": True, "codec": "pickle"}


def test_methods_stay_methods():
    assert Derived().one() == 11
    assert Base().two(b"x") == b"x"


def test_what_is_no_provider():
    with pytest.raises(InvalidArgumentError, match="no method"):
        procedures_of(int)
    with pytest.raises(InvalidArgumentError, match="name is a text"):
        rpc(3)


def test_who_is_given_the_request():
    def plain(request):
        pass

    def annotated(r: Request, x):
        pass

    def second(x, r: Request):
        pass

    class Callable:
        def __call__(self, r: Request):
            pass

    assert [wants_request(f) for f in (plain, annotated, second, Callable(), print, len)] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    code = "def quoted(r: 'rpc.Request'): pass\ndef other(r: 'MyRequest'): pass"
    scope = {}
    exec(code, scope)
    assert wants_request(scope["quoted"])
    assert not wants_request(scope["other"])
    exec(compile("def real(r: Request): pass", "x", "exec", dont_inherit=True), globals(), scope)
    assert wants_request(scope["real"])
