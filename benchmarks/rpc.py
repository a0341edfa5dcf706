"""Calls between two engines: what they should cost, and what they do here.

    python benchmarks/rpc.py [--only null,bulk] [--json FILE] [--small] [--interface eth0]

Caller and server are two processes. "C++" is a call made and answered without Python (a loop in
C++ calls a handler in C++); a "C++ handler" is called from Python. Times that are compared take
turns in one run; each is a mean over a batch of calls, and the table shows the median of batches.
A server that spins has `progress="polling"`; its caller drives the transport while it waits, as
any caller does.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import harness
import numpy as np
from rpc_engines import (
    INTERFACE,
    MIB,
    SECRET,
    SMALL,
    Batch,
    Pair,
    Scale,
    options_of,
    pair,
    repeated,
    usage,
)
from targets import PAUSE, US, Parts, Rows, Verdict, at_most, choose, report

from proxystore_hpc.bench.contestant import Operation, UnavailableError
from proxystore_hpc.bench.limits.perftest import Perftest, find_program
from proxystore_hpc.rpc import BoundCall
from proxystore_hpc.ucx_runtime import load


def awaited(loop: asyncio.AbstractEventLoop, call: BoundCall, calls: int) -> Batch:
    async def one_after_the_other() -> None:
        for _ in range(calls):
            await call.aio()

    return Batch(lambda: loop.run_until_complete(one_after_the_other()), calls=calls)


def figure(what: str, stats: harness.Stats, detail: str = "") -> Verdict:
    """A time without a target."""
    detail = detail or f"min {harness.duration(stats.minimum)}"
    return Verdict(what, "", harness.duration(stats.median), None, detail)


# The parts.


def null(scale: Scale) -> Rows:
    """Null calls one after the other, of a server that spins and of one that may sleep."""
    with pair(progress="polling") as spinning:
        yield from null_rows(spinning, scale, "spinning", {"C++": 2 * US, "handler in C++": 3 * US})
    limits = {"C++": 6 * US, "handler in C++": 6 * US, "handler in Python": 20 * US}
    with pair() as adaptive:
        yield from null_rows(adaptive, scale, "adaptive", {**limits, "awaited": 40 * US})


def null_rows(two: Pair, scale: Scale, progress: str, limits: dict[str, float]) -> Rows:
    loop = asyncio.new_event_loop()
    try:
        native, python = two.cpp_handler(), two.call("null")
        assert native() == b""
        assert python() is None
        figures = harness.interleaved(
            {
                "C++": two.in_cpp(scale.batch),
                "handler in C++": repeated(native, scale),
                "handler in Python": repeated(python, scale),
                "awaited": awaited(loop, native, scale.batch),
            },
            seconds=scale.seconds,
        )
    finally:
        loop.close()
    for name, stats in figures.items():
        what = f"null call, {progress}, {name}"
        yield at_most(what, limits[name], stats) if name in limits else figure(what, stats)
    caller = more_time(figures, "handler in C++", "C++")
    handler = more_time(figures, "handler in Python", "handler in C++")
    detail = f"at the caller; a handler in Python {handler} more; over {two.lanes}"
    yield Verdict(f"null call, {progress}: what Python adds", "", caller, None, detail)


def more_time(figures: dict[str, harness.Stats], name: str, other: str) -> str:
    """How much longer `name` takes: the median over the rounds."""
    rounds = zip(figures[name].samples, figures[other].samples, strict=True)
    return harness.duration(max(0.0, statistics.median(a - b for a, b in rounds)))


def asleep(scale: Scale) -> Rows:
    """Null calls after a pause in which both sides went to sleep."""
    with pair() as two, harness.plain_stream(8) as stream:
        native, python = two.cpp_handler(), two.call("null")
        figures = harness.interleaved(
            {
                "C++": harness.Action(native, PAUSE),
                "Python": harness.Action(python, PAUSE),
                "socket": harness.Action(stream, PAUSE),
            },
            seconds=scale.seconds,
        )
    yield at_most("null call from sleep, handler in C++", 60 * US, figures["C++"])
    yield figure("null call from sleep, handler in Python", figures["Python"])
    yield figure("8 B from sleep over a plain socket, for comparison", figures["socket"])


def tcp(scale: Scale) -> Rows:
    """Null calls over UCX's TCP."""
    with pair("tcp") as two, harness.plain_stream(8) as stream:
        figures = harness.interleaved(
            {
                "C++": two.in_cpp(scale.batch),
                "handler in C++": repeated(two.cpp_handler(), scale),
                "handler in Python": repeated(two.call("null"), scale),
                "socket": repeated(stream, scale),
            },
            seconds=scale.seconds,
        )
        lanes = two.lanes
    yield at_most("null call over TCP, C++", 25 * US, figures["C++"], lanes)
    yield at_most("null call over TCP, handler in C++", 25 * US, figures["handler in C++"])
    yield figure("null call over TCP, handler in Python", figures["handler in Python"])
    yield figure("8 B there and back over a plain socket, for comparison", figures["socket"])


def pipelined(scale: Scale) -> Rows:
    """Many calls in flight, of one thread."""
    window = scale.window

    def mapped(call: BoundCall, calls: int) -> None:
        for result in call.map(repeat(b"", calls), window=window):
            assert result in (None, b"")

    def submitted(call: BoundCall, calls: int) -> None:
        submit, flying = call.submit, deque[Any]()
        for _ in range(calls):
            if len(flying) == window:
                flying.popleft().result()
            flying.append(submit())
        for future in flying:
            assert future.result() in (None, b"")

    with pair() as two:
        many, few = 10 * scale.pipelined, max(window, scale.pipelined // 4)
        native, python = two.cpp_handler(), two.call("null")
        figures = harness.interleaved(
            {
                "C++": two.in_cpp(many, window),
                "handler in C++": Batch(
                    partial(mapped, native, scale.pipelined), calls=scale.pipelined
                ),
                "handler in C++, as futures": Batch(
                    partial(submitted, native, scale.pipelined), calls=scale.pipelined
                ),
                "handler in Python": Batch(partial(submitted, python, few), calls=few),
            },
            seconds=scale.seconds,
        )
    targets = {"C++": 3_000_000, "handler in C++": 400_000, "handler in Python": 50_000}
    for name, stats in figures.items():
        rate, best, least = 1 / stats.median, 1 / stats.minimum, targets.get(name)
        yield Verdict(
            f"calls a second, {window} in flight, {name}",
            f">= {least / 1000:g} k" if least else "",
            f"{rate / 1000:.0f} k",
            rate >= least if least else None,
            f"best {best / 1000:.0f} k",
        )


def echo(scale: Scale) -> Rows:
    """An array of 1 MiB handed to a call and given back."""
    data = harness.pattern(MIB)
    with pair() as two:
        call, raw = two.call("echo"), two.call("raw echo", "raw")
        figures = harness.interleaved(
            {
                "echo": partial(call, data),
                "raw": partial(raw, data),
                "memcpy": harness.memcpy(MIB),
            },
            seconds=scale.seconds,
        )
        assert np.array_equal(call(data), data)
        assert bytes(raw(data)) == data.tobytes()
    best = f"min {harness.duration(figures['echo'].minimum)}"
    copies = figures["echo"].median / figures["memcpy"].median
    detail = f"{best}; as long as {copies:.1f} copies of it, 2 are needed"
    yield at_most("echo of an array of 1 MiB, handler in Python", 250 * US, figures["echo"], detail)
    yield figure("the same with codec='raw'", figures["raw"])


def bulk(scale: Scale) -> Rows:
    """Pulls from memory in the arena and outside of it, against the fastest that could be."""
    with pair() as two:
        two.server.call("let_read")
        for nbytes in (MIB, scale.large):
            yield from pulls(two, nbytes, scale)
    for nbytes in (MIB, scale.large):
        yield from pulls_over_tcp(nbytes, scale)


def pulls(two: Pair, nbytes: int, scale: Scale) -> Rows:
    size, expected = harness.size(nbytes), harness.pattern(nbytes).view("u1")
    in_arena, _ = two.server.call("expose", nbytes, arena=True)
    private, address = two.server.call("expose", nbytes, arena=False)
    target = np.ones(nbytes, "u1")
    warm = np.ones(nbytes, "u1")
    actions: dict[str, Callable[[], Any]] = {
        "pull": partial(in_arena.pull, two.engine),
        "memcpy": harness.memcpy(nbytes),
        "private": partial(private.pull, two.engine, target),
    }
    try:
        actions["readv"] = process_vm_readv(two.server.pid, address, warm)
        actions["readv"]()
    except OSError as error:
        del actions["readv"]
        why = f"process_vm_readv: {error}"
    figures = harness.interleaved(actions, seconds=scale.seconds)
    assert np.array_equal(np.frombuffer(in_arena.pull(two.engine), "u1"), expected)
    assert np.array_equal(target, expected)
    rounds = zip(figures["pull"].samples, figures["memcpy"].samples, strict=True)
    share = statistics.median((pull - 10 * US) / copy for pull, copy in rounds)
    detail = (
        f"{harness.duration(figures['pull'].median)}, memcpy "
        f"{harness.duration(figures['memcpy'].median)}; best {speeds(figures, 'pull', 'memcpy')}"
    )
    what = f"pull of {size}, arena to arena: less 10 us, of memcpy's time"
    yield Verdict(what, "<= 1.1x", f"{share:.2f}x", share <= 1.1, detail)
    what = f"pull of {size} of private memory, of process_vm_readv's speed"
    if "readv" not in figures:
        yield Verdict(what, ">= 0.8", "-", None, why)
        return
    assert np.array_equal(warm, expected)
    yield of_speed(what, figures, "private", "readv")


def pulls_over_tcp(nbytes: int, scale: Scale) -> Rows:
    """The same over TCP; on one node a reader that may use other ways would take them."""
    from proxystore_hpc import _core
    from proxystore_hpc.ucx_runtime import import_ucx_module

    what = f"pull of {harness.size(nbytes)} over TCP, of a plain stream's speed"
    reader = _core.Instance("benchmark", capacity=1 << 30, secret=SECRET, doors=["ucx"])
    try:
        ucx = {"tls": "tcp,self", **options_of("tcp").get("ucx", {})}
        reader.open_door(import_ucx_module().create_door(**ucx))
        with (
            harness.Companion("rpc_engines:Server", transport="tcp", progress="adaptive") as server,
            harness.plain_stream(nbytes) as stream,
        ):
            handle = server.call("expose", nbytes, arena=True)[0]._handle

            def pull() -> Any:
                way, lease = _core.move_bulk(reader, handle, False, 0, None, None, 30.0)
                assert way == "ucx", f"it took the way {way}"
                return lease

            figures = harness.interleaved({"pull": pull, "stream": stream}, seconds=scale.seconds)
            assert bytes(pull()) == harness.pattern(nbytes).tobytes()
    finally:
        reader.close()
    yield of_speed(what, figures, "pull", "stream")


def of_speed(what: str, figures: dict[str, harness.Stats], name: str, other: str) -> Verdict:
    """A speed that must reach 0.8 of another."""
    share = harness.ratio(figures, other, name)
    detail = (
        f"{harness.duration(figures[name].median)}, {other} "
        f"{harness.duration(figures[other].median)}; best {speeds(figures, name, other)}"
    )
    return Verdict(what, ">= 0.8", f"{share:.2f}", share >= 0.8, detail)


def speeds(figures: dict[str, harness.Stats], name: str, other: str) -> str:
    return " of ".join(harness.duration(figures[which].minimum) for which in (name, other))


def process_vm_readv(pid: int, address: int, target: Any) -> Callable[[], int]:
    """A function that reads memory of another process by one system call.

    Raises:
        OSError: When it is called, if the kernel does not allow it.
    """

    class Iovec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    function = ctypes.CDLL(None, use_errno=True).process_vm_readv
    function.restype = ctypes.c_ssize_t
    ulong, pointer = ctypes.c_ulong, ctypes.POINTER(Iovec)
    function.argtypes = (ctypes.c_int, pointer, ulong, pointer, ulong, ulong)

    def read() -> int:
        done = 0
        while done < target.nbytes:
            here = Iovec(target.ctypes.data + done, target.nbytes - done)
            there = Iovec(address + done, target.nbytes - done)
            got = function(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
            if got <= 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            done += got
        return done

    return read


def bound(scale: Scale) -> Rows:
    """A call that is kept against one that is built each time."""
    with pair() as two:
        engine, there = two.engine, two.there
        kept = two.call("pshpc.ping", "raw")
        figures = harness.interleaved(
            {
                "kept": repeated(kept, scale),
                "rebuilt": repeated(
                    lambda: engine.rpc("pshpc.ping", codec="raw").on(there)(), scale
                ),
            },
            seconds=scale.seconds,
        )
    times = harness.ratio(figures, "rebuilt", "kept")
    detail = " against ".join(harness.duration(figures[n].median) for n in ("rebuilt", "kept"))
    yield Verdict(
        "rpc(name).on(endpoint)() each time, of a call kept", "", f"{times:.2f}x", None, detail
    )


def endurance(scale: Scale) -> Rows:
    """Memory and descriptors over very many calls of all kinds."""
    shares = {"C++": 0.9, "from Python": 0.06, "submitted": 0.03, "handler in Python": 0.01}
    counts = {name: max(1, int(share * scale.total)) for name, share in shares.items()}
    payload = harness.pattern(64 << 10)
    with pair() as two:
        native, python = two.cpp_handler(), two.call("null")
        big = two.call("echo")

        def all_kinds(share: float) -> int:
            calls = {name: max(1, int(share * count)) for name, count in counts.items()}
            two.probe(calls["C++"], scale.window)
            for _ in range(calls["from Python"]):
                native()
            flying = deque[Any]()
            for _ in range(calls["submitted"]):
                if len(flying) == scale.window:
                    flying.popleft().result()
                flying.append(native.submit())
            while flying:
                flying.popleft().result()
            for i in range(calls["handler in Python"]):
                big(payload) if i % 10 == 0 else python()
            return sum(calls.values())

        done = all_kinds(0.1)  # warms pools and caches
        before = usage(), two.server.call("usage")
        began = time.perf_counter()
        for _ in range(9):
            done += all_kinds(0.1)
        seconds = time.perf_counter() - began
        after = usage(), two.server.call("usage")
    for who, (was, fds), (now, fds_now) in zip(("caller", "server"), before, after, strict=True):
        grown = now - was
        yield Verdict(
            f"memory of the {who} after {done:,} calls",
            "flat",
            f"{grown / 1024:+.0f} KiB",
            grown < 2 * MIB,
            f"{was / MIB:.1f} MiB after the first tenth, {now / MIB:.1f} MiB in the end, "
            f"{seconds:.0f} s",
        )
        what = f"descriptors of the {who} after these calls"
        yield Verdict(what, "no more", f"{fds_now - fds:+d}", fds_now <= fds, f"{fds_now} open")


def perftest(scale: Scale) -> Rows:
    """Our null call against a ping-pong of UCX's active messages, over the same kind of memory."""
    for transport in ("shm", "ucx-shm", "tcp"):
        what = f"null call over {transport} in C++, of ucx_perftest's ping-pong"
        with pair(transport, "adaptive" if transport == "tcp" else "polling") as two:
            lane = two.lanes.split("(")[0].split()[0]
            tls, _, interface = ("posix", "", "") if transport == "shm" else lane.partition("/")
            native = two.cpp_handler()
            ours, python, theirs = [], [], []
            try:
                reference = Perftest(tls, tls, interface if tls == "tcp" else "")
                _, whose = find_program()
                with reference.open(Operation.CALL, 8) as ping_pong:
                    for _ in range(scale.rounds):
                        # One at a time: two that spin would share the cores. Whoever met another
                        # spinner sleeps instead for a moment.
                        time.sleep(0.05)
                        two.probe(scale.batch)
                        ours.append(two.in_cpp(10 * scale.batch).time())
                        python.append(repeated(native, scale).time())
                        theirs.append(ping_pong())
            except (UnavailableError, OSError) as error:
                yield Verdict(what, "", "-", None, str(error))
                continue
        times = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        base, cpp, whole = map(statistics.median, (theirs, ours, python))
        yield Verdict(
            what,
            "",
            f"{times:.2f}x",
            None,
            f"of {harness.duration(cpp)}, UCX takes {harness.duration(base)} ({lane}); "
            f"the caller's Python adds {harness.duration(max(0.0, whole - cpp))}; "
            f"UCX {'.'.join(map(str, load().version))} here, ucx_perftest {whose}",
        )


PARTS: Parts = {
    "null": null,
    "asleep": asleep,
    "tcp": tcp,
    "pipelined": pipelined,
    "echo": echo,
    "bulk": bulk,
    "bound": bound,
    "endurance": endurance,
    "perftest": perftest,
}


def main() -> int:
    parser = harness.arguments(__doc__)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="few calls: only to see that it runs")
    parser.add_argument("--calls", type=int, help="calls of the part endurance (10,000,000)")
    parser.add_argument("--interface", help="network interface for UCX over TCP")
    options = parser.parse_args()
    if options.interface is not None:
        os.environ[INTERFACE] = options.interface
    parts = choose(parser, options.only, PARTS)
    scale = SMALL if options.small else Scale(seconds=3 * options.seconds)
    if options.calls is not None:
        scale.total = options.calls
    run = harness.Run("rpc")
    run.header()
    report(run, parts, scale)
    run.finish(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
