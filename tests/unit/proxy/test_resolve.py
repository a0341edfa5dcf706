"""When a factory is called, how often, and what its errors become."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from proxystore_hpc.exceptions import ProxyResolveError, ProxyStoreHpcError
from proxystore_hpc.proxy import Proxy, extract, is_resolved, resolve


class Counted:
    """A factory that counts its calls, and can be held inside one."""

    def __init__(self, target: Any = "target", error: BaseException | None = None) -> None:
        self.calls = 0
        self.target = target
        self.error = error
        self.entered = threading.Event()
        self.may_leave = threading.Event()
        self.may_leave.set()

    def __call__(self) -> Any:
        self.calls += 1
        self.entered.set()
        assert self.may_leave.wait(30)
        if self.error is not None:
            raise self.error
        return self.target


class InThread(threading.Thread):
    """Runs a function and keeps what it returns or raises."""

    def __init__(self, function: Any, *args: Any) -> None:
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.function(*self.args)
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "the thread hangs"
        if self.error is not None:
            raise self.error
        return self.result


def wait_until_threads_wait() -> None:
    # There is nothing to see from outside of a thread that waits inside the proxy.
    time.sleep(0.2)


def test_first_use_calls_the_factory_and_the_second_does_not() -> None:
    factory = Counted([1, 2])
    proxy = Proxy(factory)
    assert not is_resolved(proxy)
    assert factory.calls == 0
    assert proxy[0] == 1
    assert is_resolved(proxy)
    assert proxy[1] == 2
    assert factory.calls == 1


def test_none_is_a_target_like_any_other() -> None:
    factory = Counted(None)
    proxy = Proxy(factory)
    assert str(proxy) == "None"
    assert extract(proxy) is None
    assert factory.calls == 1


@pytest.mark.parametrize("factory", [None, "factory", 3])
def test_factory_must_be_callable(factory: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        Proxy(factory)
    with pytest.raises(TypeError, match="callable"):
        Proxy(factory, cache_defaults=True)


def test_constructor_refuses_unknown_arguments() -> None:
    with pytest.raises(TypeError):
        Proxy(list, True)
    with pytest.raises(TypeError, match="resolved"):
        Proxy(list, resolved=True)
    with pytest.raises(TypeError):
        Proxy()


def test_factory_error_becomes_the_cause() -> None:
    error = LookupError("no object 17 in store 'sim' of node3")
    proxy = Proxy(Counted(error=error))
    with pytest.raises(ProxyResolveError, match="no object 17 in store 'sim' of node3") as caught:
        len(proxy)
    assert caught.value.cause is error
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, ProxyStoreHpcError)
    assert "LookupError" in str(caught.value)
    assert "Counted" in str(caught.value)


def test_failed_resolve_can_be_tried_again() -> None:
    factory = Counted("late", error=TimeoutError("not yet"))
    proxy = Proxy(factory)
    with pytest.raises(ProxyResolveError):
        resolve(proxy)
    assert not is_resolved(proxy)
    factory.error = None
    assert proxy == "late"
    assert factory.calls == 2


def test_error_is_never_hidden_as_a_missing_attribute() -> None:
    proxy = Proxy(Counted(error=AttributeError("in the factory")))
    with pytest.raises(ProxyResolveError, match="in the factory"):
        hasattr(proxy, "anything")


def test_error_without_printable_message() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(ProxyResolveError, match="UnprintableError"):
        resolve(Proxy(Counted(error=UnprintableError())))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupts_pass_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        resolve(Proxy(Counted(error=error)))


def test_deleting_the_target_makes_the_proxy_unresolved() -> None:
    factory = Counted()
    proxy = Proxy(factory)
    resolve(proxy)
    del proxy.__proxy_wrapped__
    assert not is_resolved(proxy)
    assert proxy == "target"
    assert factory.calls == 2
    del proxy.__proxy_target__
    with pytest.raises(AttributeError):
        del proxy.__proxy_wrapped__


def test_target_of_an_unresolved_proxy_is_not_an_attribute() -> None:
    proxy = Proxy(Counted())
    with pytest.raises(AttributeError):
        object.__getattribute__(proxy, "__proxy_target__")
    resolve(proxy)
    assert object.__getattribute__(proxy, "__proxy_target__") == "target"


def test_proxy_without_factory() -> None:
    proxy = Proxy.__new__(Proxy)
    with pytest.raises(ProxyResolveError, match="not initialized") as caught:
        len(proxy)
    assert isinstance(caught.value.cause, AttributeError)
    proxy.__proxy_wrapped__ = [1]
    assert len(proxy) == 1


def test_factory_that_uses_its_own_proxy() -> None:
    proxy: Proxy[int] = Proxy(lambda: proxy + 1)
    with pytest.raises(ProxyResolveError, match="uses the proxy itself"):
        resolve(proxy)
    # The proxy is whole again.
    proxy.__proxy_factory__ = lambda: 4
    assert proxy == 4


def test_proxy_of_a_proxy() -> None:
    inner = Proxy(lambda: [1, 2])
    outer = Proxy(lambda: inner)
    assert extract(outer) is inner
    assert outer + [3] == [1, 2, 3]  # noqa: RUF005
    assert outer == inner
    assert isinstance(outer, list)


def test_threads_that_resolve_at_once_call_the_factory_once() -> None:
    factory = Counted(object())
    factory.may_leave.clear()
    proxy = Proxy(factory)
    threads = [InThread(extract, proxy) for _ in range(8)]
    assert factory.entered.wait(30)
    wait_until_threads_wait()
    factory.may_leave.set()
    assert {id(thread.outcome()) for thread in threads} == {id(factory.target)}
    assert factory.calls == 1


def test_waiting_thread_does_not_hold_the_gil() -> None:
    factory = Counted("done")
    factory.may_leave.clear()
    proxy = Proxy(factory)
    threads = [InThread(str, proxy) for _ in range(3)]
    assert factory.entered.wait(30)
    wait_until_threads_wait()
    # This thread runs Python, so none of the waiting ones keeps it from doing so.
    assert sum(range(1000)) == 499500
    factory.may_leave.set()
    assert [thread.outcome() for thread in threads] == ["done"] * 3


def test_waiting_threads_share_the_error() -> None:
    error = TimeoutError("the owner does not answer")
    factory = Counted(error=error)
    factory.may_leave.clear()
    proxy = Proxy(factory)
    threads = [InThread(resolve, proxy) for _ in range(4)]
    assert factory.entered.wait(30)
    wait_until_threads_wait()
    factory.may_leave.set()
    raised = []
    for thread in threads:
        with pytest.raises(ProxyResolveError) as caught:
            thread.outcome()
        raised.append(caught.value)
    assert all(one.cause is error for one in raised)
    assert len({id(one) for one in raised}) == 4
    assert factory.calls == 1


def test_waiting_thread_takes_over_after_an_interrupt() -> None:
    factory = Counted("target", error=KeyboardInterrupt())
    factory.may_leave.clear()
    proxy = Proxy(factory)
    first = InThread(resolve, proxy)
    assert factory.entered.wait(30)
    second = InThread(extract, proxy)
    wait_until_threads_wait()
    assert factory.calls == 1

    def leave() -> None:
        factory.may_leave.set()
        with pytest.raises(KeyboardInterrupt):
            first.outcome()

    leave()
    with pytest.raises(KeyboardInterrupt):
        second.outcome()
    assert factory.calls == 2


def test_signal_handler_runs_while_the_main_thread_waits() -> None:
    factory = Counted()
    factory.may_leave.clear()
    proxy = Proxy(factory)
    other = InThread(resolve, proxy)
    assert factory.entered.wait(30)

    class AlarmError(Exception):
        pass

    def on_alarm(*_: object) -> None:
        raise AlarmError

    previous = signal.signal(signal.SIGUSR1, on_alarm)
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(AlarmError):
            len(proxy)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    factory.may_leave.set()
    other.outcome()
    assert proxy == "target"
    assert factory.calls == 1


def test_factories_that_need_each_others_proxies() -> None:
    """Thread 1 resolves a, which needs b; thread 2 resolves b, which needs a."""
    both_inside = threading.Barrier(2)

    def make(other: str) -> Any:
        def factory() -> str:
            both_inside.wait(30)
            return str(proxies[other]) + "x"

        return factory

    proxies = {"a": Proxy(make("b")), "b": Proxy(make("a"))}
    threads = [InThread(str, proxies[name]) for name in "ab"]
    messages = []
    for thread in threads:
        with pytest.raises(ProxyResolveError) as caught:
            thread.outcome()
        messages.append(str(caught.value))
    assert all("wait for each other" in message for message in messages)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    factory = Counted("target")
    factory.may_leave.clear()
    proxy = Proxy(factory)
    resolving = InThread(resolve, proxy)
    waiting = InThread(resolve, proxy)
    assert factory.entered.wait(30)
    wait_until_threads_wait()
    child = os.fork()
    if child == 0:
        proxy.__proxy_factory__ = lambda: "of the child"
        os._exit(0 if str(proxy) == "of the child" else 1)
    deadline = time.monotonic() + 20
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == (child, 0)
    factory.may_leave.set()
    resolving.outcome()
    waiting.outcome()
    assert factory.calls == 1


def test_many_threads_and_proxies_under_contention() -> None:
    calls: list[int] = []

    def make(i: int) -> Any:
        def factory() -> int:
            calls.append(i)
            time.sleep(0.0005)
            return i

        return factory

    proxies = [Proxy(make(i)) for i in range(100)]

    def use_all() -> int:
        return sum(proxies)

    threads = [InThread(use_all) for _ in range(6)]
    assert {thread.outcome() for thread in threads} == {sum(range(100))}
    assert sorted(calls) == list(range(100))
