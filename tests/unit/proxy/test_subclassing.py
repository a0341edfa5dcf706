"""Subclasses in Python: state of their own, overrides, generics."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Generic, TypeVar

import pytest
from support.proxies import lends_memory

from proxystore_hpc.proxy import Proxy, is_resolved, resolve

T = TypeVar("T")


class Slotted(Proxy[T]):
    """As the reference proxies are made: slots named like the state, set past the proxy."""

    __slots__ = ("__proxy_note__", "plain")

    __proxy_note__: str
    plain: int

    def __init__(self, factory: Any, *, note: str = "", **options: Any) -> None:
        object.__setattr__(self, "__proxy_note__", note)
        super().__init__(factory, **options)

    def note(self) -> str:
        return f"note: {self.__proxy_note__}"


class Guarded(Proxy[T]):
    """Decides on every access to the target."""

    __slots__ = ("__proxy_valid__",)

    __proxy_valid__: bool

    def __init__(self, factory: Any, **options: Any) -> None:
        object.__setattr__(self, "__proxy_valid__", True)
        super().__init__(factory, **options)

    @property
    def __proxy_wrapped__(self) -> T:
        if not self.__proxy_valid__:
            raise PermissionError("invalidated")
        return super().__proxy_wrapped__

    @__proxy_wrapped__.setter
    def __proxy_wrapped__(self, target: T) -> None:
        object.__setattr__(self, "__proxy_target__", target)

    @__proxy_wrapped__.deleter
    def __proxy_wrapped__(self) -> None:
        object.__delattr__(self, "__proxy_target__")


class Target:
    def __init__(self) -> None:
        self.name = "target"


def test_state_of_a_subclass_does_not_resolve() -> None:
    proxy = Slotted(Target, note="n")
    assert proxy.__proxy_note__ == "n"
    assert proxy.note() == "note: n"
    proxy.plain = 3
    assert proxy.plain == 3
    assert not is_resolved(proxy)
    assert proxy.name == "target"
    assert not hasattr(Target(), "plain")


def test_unset_slot() -> None:
    proxy = Slotted(Target)
    object.__delattr__(proxy, "__proxy_note__")
    with pytest.raises(AttributeError):
        _ = proxy.__proxy_note__
    assert not is_resolved(proxy)
    with pytest.raises(AttributeError, match="Target"):
        _ = proxy.plain


def test_subclass_forwards_like_the_base() -> None:
    proxy = Slotted(lambda: [1, 2], note="n")
    assert isinstance(proxy, list)
    assert isinstance(proxy, Slotted)
    assert len(proxy) == 2
    assert proxy + [3] == [1, 2, 3]  # noqa: RUF005
    assert proxy.__doc__ == list.__doc__
    assert proxy.__class__ is list
    assert repr(proxy).startswith("<Slotted at ")
    proxy += [3]
    assert type(proxy) is Slotted
    assert proxy[2] == 3
    assert Slotted(lambda: len)("abc") == 3


def test_class_keeps_its_own_module_and_doc() -> None:
    assert Slotted.__module__ == __name__
    assert "reference proxies" in (Slotted.__doc__ or "")


@pytest.mark.parametrize(
    "use",
    [
        len,
        list,
        str,
        lambda p: p[0],
        lambda p: p.append(1),
        lambda p: p + [1],  # noqa: RUF005
        lambda p: p == [1],
        lambda p: isinstance(p, list),
        lambda p: p.__proxy_wrapped__,
        lambda p: [1] + p,  # noqa: RUF005
        pytest.param(memoryview, marks=lends_memory),
        resolve,
    ],
)
def test_overridden_access_is_asked_every_time(use: Any) -> None:
    proxy = Guarded(lambda: [1])
    resolve(proxy)
    assert proxy == [1]
    proxy.__proxy_valid__ = False
    with pytest.raises(PermissionError, match="invalidated"):
        use(proxy)
    assert is_resolved(proxy)


def test_overridden_setter_keeps_results() -> None:
    proxy = Guarded(lambda: 1)
    proxy += 1
    assert type(proxy) is Guarded
    assert proxy == 2
    del proxy.__proxy_wrapped__
    assert not is_resolved(proxy)


def test_instance_dictionary() -> None:
    class Loose(Proxy[Any]):
        label = None

    proxy = Loose(Target)
    proxy.label = "own"
    object.__setattr__(proxy, "other", 1)
    assert (proxy.label, proxy.other) == ("own", 1)
    assert not is_resolved(proxy)
    assert vars(proxy) == {"name": "target"}
    proxy.name = "changed"
    assert proxy.__proxy_wrapped__.name == "changed"
    del proxy.label
    assert proxy.label is None


def test_class_attribute_added_later() -> None:
    class Late(Proxy[Any]):
        pass

    proxy = Late(Target)
    Late.added = 1  # type: ignore[attr-defined]
    assert proxy.added == 1
    del Late.added  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = proxy.added


def test_overridden_getattr() -> None:
    seen = []

    class Watching(Proxy[Any]):
        def __getattr__(self, name: str) -> Any:
            seen.append(name)
            return super().__getattr__(name)

    proxy = Watching(Target)
    assert proxy.name == "target"
    assert seen == ["name"]
    with pytest.raises(AttributeError):
        _ = proxy.missing


def test_overridden_getattribute() -> None:
    class Renaming(Proxy[Any]):
        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__("name" if name == "alias" else name)

    assert Renaming(Target).alias == "target"


def test_overridden_setattr() -> None:
    seen = []

    class Watching(Proxy[Any]):
        def __setattr__(self, name: str, value: Any) -> None:
            seen.append(name)
            super().__setattr__(name, value)

    proxy = Watching(Target)
    proxy.name = "new"
    assert seen == ["name"]
    assert proxy.name == "new"


def test_overridden_operations() -> None:
    class Different(Proxy[Any]):
        def __len__(self) -> int:
            return 99

        def __call__(self) -> str:
            return "called"

        def __add__(self, other: Any) -> str:
            return "added"

        def __hash__(self) -> int:
            return 5

        def __repr__(self) -> str:
            return "shown"

    proxy = Different(lambda: [1])
    assert len(proxy) == 99
    assert proxy() == "called"
    assert proxy + 1 == "added"
    assert hash(proxy) == 5
    assert repr(proxy) == "shown"
    assert proxy[0] == 1


def test_overridden_class() -> None:
    class Honest(Proxy[Any]):
        __class__ = object.__dict__["__class__"]

    proxy = Honest(lambda: [1])
    assert proxy.__class__ is Honest
    assert not isinstance(proxy, list)
    assert not is_resolved(proxy)


def test_new_with_other_arguments() -> None:
    class Derived(Proxy[Any]):
        def __new__(cls, *_: Any) -> Derived:
            return super().__new__(cls)

        def __init__(self, target: Any, extra: Any) -> None:
            super().__init__(lambda: (target, extra))

    assert Derived(1, 2) == (1, 2)


def test_generic_subclasses() -> None:
    class Middle(Proxy[T]):
        pass

    class Typed(Middle[int]):
        pass

    class Both(Proxy[T], Generic[T]):
        pass

    assert Middle[int](lambda: 3) == 3
    assert Typed(lambda: 3) == 3
    assert not is_resolved(Both[int](lambda: 3))
    assert Both[int](lambda: 3) == 3
    assert issubclass(Typed, Proxy)


def test_init_subclass_of_the_user_runs() -> None:
    registered = []

    class Base(Proxy[Any]):
        def __init_subclass__(cls, *, tag: str, **options: Any) -> None:
            super().__init_subclass__(**options)
            registered.append((cls.__name__, tag))

    class Derived(Base, tag="t"):
        pass

    assert registered == [("Derived", "t")]
    assert Derived(Target).name == "target"
    with pytest.raises(TypeError):
        type("Wrong", (Proxy,), {}, unknown=1)


def test_finalizer_runs() -> None:
    ended = []

    class Finalized(Proxy[Any]):
        def __del__(self) -> None:
            ended.append(is_resolved(self))

    proxy = Finalized(Target)
    del proxy
    assert ended == [False]


def text_factory() -> str:
    return "text"


class Reduced(Proxy[T]):
    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.__proxy_factory__,)


def test_pickle_of_a_subclass() -> None:
    """As in ProxyStore: a plain proxy, unless the subclass has its own __reduce__."""
    plain = pickle.loads(pickle.dumps(Slotted(text_factory, note="n")))
    assert type(plain) is Proxy
    assert plain == "text"
    for made in (pickle.loads(pickle.dumps(Reduced(text_factory))), copy.copy(Reduced(str))):
        assert type(made) is Reduced
        assert not is_resolved(made)
