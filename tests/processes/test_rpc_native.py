"""Handlers in C++, of a module that knows no more of the library than its public header."""

from __future__ import annotations

import gc
import importlib.util
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import procfs
from support.doors import require_door
from support.engines import open_engine

import proxystore_hpc
from proxystore_hpc import Engine
from proxystore_hpc.exceptions import InvalidArgumentError, ProtocolError, RemoteError

HERE = Path(__file__).resolve().parent
GUIDE = HERE.parents[1] / "docs" / "guides" / "rpc.md"
sys.path.insert(0, str(HERE.parents[1] / "ci" / "buildsys"))

import cxx_build  # noqa: E402


def build(source: Path, folder: Path) -> Path:
    """Compiles an extension module, as somebody would who has only the installed package."""
    try:
        compiler = cxx_build.find_compiler()
    except cxx_build.CompileError as error:
        pytest.skip(str(error))
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        pytest.skip(f"no Python.h in {headers}: install Python's headers (python3-dev)")
    target = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = subprocess.run(
        [
            *compiler,
            *("-std=c++11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"),
            *(f"-I{proxystore_hpc.get_include()}", "-isystem", str(headers)),
            *(str(source), "-o", str(target)),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(HERE / "native_handlers.cpp", tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def there(make_lasting_peer, built):
    require_door("ucx")

    def serve(here: Any) -> None:
        here.module = load(built)
        for name in ("null", "sum", "zeros", "about", "throw", "later"):
            here.engine.register(name, getattr(here.module, f"make_{name}")(), codec="raw")
        here.engine.register("about", here.module.make_about(), 7, codec="raw")

    peer = make_lasting_peer()
    address = open_engine(peer, serve)
    with Engine("ucx", capacity="64MiB") as engine:
        yield engine.lookup(address)


@pytest.fixture
def call(there):
    def run(name: str, data: Any = b"", provider_id: int = 0, **options: Any) -> bytes:
        bound = there.engine.rpc(name, codec="raw").on(there, provider_id)
        return bytes(bound(data, **options))

    return run


def test_the_header_is_where_get_include_says():
    assert Path(proxystore_hpc.get_include(), "proxystore_hpc", "rpc.h").is_file()


def test_it_answers_nothing_if_it_does_not_reply(call):
    assert call("null") == b""
    assert call("null", b"x" * 100_000) == b""


@pytest.mark.parametrize("count", [0, 1, 511, 512, 100_000])
def test_bytes_come_as_body_or_payload(call, count):
    values = np.arange(count, dtype="f8")
    assert np.frombuffer(call("sum", values))[0] == values.sum()


@pytest.mark.parametrize("nbytes", [1, 4096, 4097, 3_000_000])
def test_what_it_replies_may_be_of_any_size(call, nbytes):
    assert call("zeros", np.uint64(nbytes).tobytes()) == bytes(nbytes)


def test_it_knows_its_provider_and_the_deadline(call):
    assert call("about").startswith(b"0 ")
    provider, remaining = call("about", provider_id=7, timeout=20.0).split()
    assert provider == b"7"
    assert 0 < float(remaining) < 20.1  # it travels by a coarse clock
    assert call("about", timeout=float("inf")).endswith(b" inf")


def test_what_it_throws_or_fails_with_is_a_remote_error(call):
    with pytest.raises(RemoteError, match="out of cheese") as caught:
        call("throw", b"out of cheese")
    assert caught.value.peer is not None
    with pytest.raises(RemoteError, match=r"no std::exception"):
        call("throw")
    with pytest.raises(RemoteError, match="8 bytes"):
        call("zeros", b"?")


def test_it_may_answer_later_from_a_thread_of_its_own(call, there):
    bound = there.engine.rpc("later", codec="raw").on(there)
    futures = [bound.submit(b"%d" % i) for i in range(50)]
    assert [future.result() for future in futures] == [b"%d" % i for i in range(50)]
    with pytest.raises(RemoteError, match="it was asked to"):
        call("later", b"fail")


def test_it_runs_while_the_servers_python_is_held_up(make_peer, built):
    require_door("ucx")

    def serve(here: Any) -> None:
        here.engine.register("sum", load(built).make_sum(), codec="raw")

    def hold_gil(here: Any) -> float:
        import ctypes
        import time

        ctypes.PyDLL(None).usleep(1_500_000)  # unlike CDLL, it keeps the GIL
        return time.monotonic()

    import time

    peer = make_peer()
    address = open_engine(peer, serve)
    with Engine("ucx", capacity="64MiB") as engine:
        bound = engine.rpc("sum", codec="raw").on(address)
        bound(b"")
        holding = peer.start(hold_gil)
        time.sleep(0.3)
        assert np.frombuffer(bound(np.ones(4)))[0] == 4
        answered = time.monotonic()
        assert holding.result() > answered


def test_it_is_destroyed_with_its_registration(built):
    from proxystore_hpc import _core

    module = load(built)
    before = module.count_alive()

    def destroyed() -> bool:
        gc.collect()
        # What other threads dropped is released by the next use of the core from Python.
        _core.Completions().drain()
        return module.count_alive() == before

    with Engine("shm", capacity="16MiB") as engine:
        engine.register("null", module.make_null(), codec="raw")
        assert module.count_alive() > before
        engine.deregister("null")
        procfs.wait_until(destroyed, "the handler is destroyed")
        engine.register("null", module.make_null(), codec="raw")
        assert module.count_alive() > before
    del engine
    procfs.wait_until(destroyed, "the handler is destroyed with its engine")
    module.make_null()  # of which nobody takes the capsule
    assert module.count_alive() == before


def test_other_capsules_and_versions_are_refused():
    import ctypes

    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = (
        ctypes.py_object,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
    )
    name = b"proxystore_hpc.rpc.Handler"
    future = (ctypes.c_uint64 * 4)(99)
    with Engine("shm", capacity="16MiB") as engine:
        with pytest.raises((ValueError, InvalidArgumentError)):
            engine.register("wrong", make(ctypes.addressof(future), b"something else", None))
        with pytest.raises(ProtocolError, match="build its module again"):
            engine.register("newer", make(ctypes.addressof(future), name, None))


def test_the_module_of_the_guide_works(make_peer, tmp_path):
    require_door("ucx")
    blocks = re.findall(r"^```cpp\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    source = tmp_path / "norms.cpp"
    source.write_text(blocks[0])
    path = build(source, tmp_path)

    def serve(here: Any) -> None:
        here.engine.register("norm", load(path).make_norm(), codec="raw")

    peer = make_peer()
    address = open_engine(peer, serve)
    with Engine("ucx", capacity="64MiB") as engine:
        norm = engine.rpc("norm", codec="raw").on(address)
        for count in (2, 10_000):
            assert np.frombuffer(norm(np.full(count, 3.0)))[0] == pytest.approx(3 * count**0.5)
