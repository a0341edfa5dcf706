"""The proxy type in Python passes the tests of the C type, and exchanges pickles with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import suites
from support.proxies import LIMITS

from proxystore_hpc.proxy._implementation import COMPILED

SUITES = (
    "unit/proxy",
    "compat/test_proxy_compat.py",
    "unit/store/test_store_proxies.py",
    "unit/test_factory.py",
)
LEAST = 490

pytestmark = pytest.mark.skipif(not COMPILED, reason="the C type is not built")


def run(*arguments: str, pure: bool, **wanted: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=suites.TESTS.parent,
        env=os.environ | {"PROXYSTORE_HPC_PURE": str(int(pure))} | wanted,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.timeout(300)
def test_suites_of_the_c_type(tmp_path: Path) -> None:
    folders = [str(suites.TESTS / name) for name in SUITES]
    # Its status may tell of what others have left in the meantime.
    done = run("-m", "pytest", *suites.arguments(tmp_path), *folders, pure=True)
    assert suites.report(tmp_path).exists(), done.stdout + done.stderr
    passed = suites.passed(tmp_path, excused=(LIMITS, "proxystore is not installed"))
    assert len(passed) >= LEAST


TARGETS = """[[1, 2], {"a": 1}, (1, 2), 17, 1.5, {3}, range(4), b"b", "text", array.array("b"),
    pathlib.PurePosixPath("p"), collections.deque()]"""
MAKE = f"""
import array, collections, pathlib, pickle, sys
from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import Proxy, _implementation

targets = {TARGETS}
made = [Proxy(SimpleFactory(t), cache_defaults=True, target=t) for t in targets]
print(*(pickle.dumps(p, protocol).hex() for p in made for protocol in range(6)), sep="\\n")
print(_implementation.COMPILED)
"""
READ = f"""
import array, collections, pathlib, pickle, sys
from proxystore_hpc.proxy import Proxy, is_resolved

lines = sys.argv[1].split()
for i, target in enumerate({TARGETS}):
    for line in lines[6 * i : 6 * i + 6]:
        proxy = pickle.loads(bytes.fromhex(line))
        assert isinstance(proxy, Proxy) and isinstance(proxy, type(target))
        hash_of = target.__hash__ and hash(target)
        assert (target.__hash__ and hash(proxy)) == hash_of
        assert not is_resolved(proxy)
        flags = type(target).__flags__ & (1 << 5 | 1 << 6)
        assert type(proxy).__flags__ & (1 << 5 | 1 << 6) == flags
        assert proxy == target
print(i)
"""


def printed(program: str, *arguments: str, pure: bool) -> list[str]:
    # One seed, or the hashes of strings in the pickles differ.
    done = run("-c", program, *arguments, pure=pure, PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_both_types_make_and_read_the_same_pickles() -> None:
    ours, theirs = (printed(MAKE, pure=pure) for pure in (True, False))
    assert (ours.pop(), theirs.pop()) == ("False", "True")
    assert ours == theirs
    for pure in (True, False):
        assert printed(READ, " ".join(ours), pure=pure) == ["11"]
