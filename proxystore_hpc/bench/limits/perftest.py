"""UCX's own measuring program, over the transports that our door may take."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from proxystore_hpc.bench.contestant import Burst, Kind, Operation, UnavailableError
from proxystore_hpc.bench.machine import version_of

__all__ = ["Perftest", "find_program"]

# Test, and how many of what it reports make one operation.
_TESTS = {
    Operation.GET: ("ucp_get", 1),
    Operation.EXCHANGE: ("ucp_get", 1),
    Operation.BATCH: ("ucp_get", 1),
    Operation.RESOLVE: ("ucp_get", 1),
    Operation.PULL: ("ucp_get", 1),
    Operation.PUT_THERE: ("ucp_put_lat", 1),
    Operation.PUSH: ("ucp_put_lat", 1),
    Operation.ECHO: ("ucp_am_lat", 2),
    Operation.CALL: ("ucp_am_lat", 2),
}
_BYTES = 256 << 20
_MOST = 300
_LIMIT = 30.0


class Perftest:
    """`ucx_perftest` between two processes, both of which spin.

    Args:
        what: Shown after its name.
        tls: Transports that it may use.
        device: The network device, if it must be one.
    """

    kind = Kind.LIMIT
    operations = frozenset(_TESTS)
    # Both sides hold a buffer, and the rest of the run has little interest in more.
    most = 1 << 30

    def __init__(self, what: str, tls: str, device: str = "") -> None:
        self.name = f"ucx_perftest-{what}"
        self.about = f"ucx_perftest over {tls.replace(',', ', ')}, one operation after the other"
        self._tls = tls
        self._device = device

    def check(self) -> dict[str, str]:
        """As `Contestant.check`."""
        from proxystore_hpc.exceptions import DoorUnavailableError

        try:
            path, whose = find_program()
        except DoorUnavailableError as error:
            raise UnavailableError(str(error)) from error
        if self._tls == "ib":
            from proxystore_hpc.ucx_runtime import import_ucx_module

            names = {row["transport"].split("_")[0] for row in import_ucx_module().transports()}
            if not names & {"rc", "dc", "ud"}:
                raise UnavailableError("UCX offers no RDMA network here")
        return {"ucx_perftest": f"{path} ({whose})"}

    def open(self, operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
        """As `Contestant.open`."""
        return self._opened(operation, nbytes)

    @contextmanager
    def _opened(self, operation: Operation, nbytes: int) -> Iterator[Burst]:
        program, _ = find_program()
        test, times = _TESTS[operation]
        count = max(4, min(_MOST, _BYTES // max(1, nbytes)))
        client = ["-t", test, "-s", str(max(8, nbytes)), "-f", "-n", str(count)]
        client += ["-w", str(max(1, count // 10)), "-O", "1"]
        environment = _environment(program, self._tls, self._device)
        yield lambda: times * _latency([str(program)], client, environment)


def _environment(program: Path, tls: str, device: str) -> dict[str, str]:
    found = {**os.environ, "UCX_TLS": f"{tls},self", "UCX_WARN_UNUSED_ENV_VARS": "n"}
    if device:
        found["UCX_NET_DEVICES"] = device
    libraries = program.parent.parent / "lib"
    if "site-packages" in libraries.parts:
        before = os.environ.get("LD_LIBRARY_PATH")
        found["LD_LIBRARY_PATH"] = f"{libraries}{os.pathsep}{before}" if before else str(libraries)
    return found


def _latency(program: list[str], client: list[str], environment: dict[str, str]) -> float:
    """Seconds of one operation, the median that the program reports."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(
        [*program, "-p", port],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told, end = "", time.monotonic() + _LIMIT
    try:
        while time.monotonic() < end and server.poll() is None:
            time.sleep(0.05)
            done = subprocess.run(
                [*program, "127.0.0.1", "-p", port, *client],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
            told = done.stdout
            final = re.search(r"(?:^|Final:)\s+\d+\s+([\d.]+)", told, re.MULTILINE)
            if final is not None:
                return 1e-6 * float(final[1])
    finally:
        server.kill()
        server.wait()
    raise UnavailableError(f"ucx_perftest failed: {told.strip()[-200:]}")


def find_program() -> tuple[Path, str]:
    """Path of `ucx_perftest`, and whose it is: of the UCX in use, in PATH, or of UCX's wheel.

    Raises:
        UnavailableError: There is none.
    """
    from proxystore_hpc.ucx_runtime import load

    own = Path(load().path).parent.parent / "bin" / "ucx_perftest"
    if os.access(own, os.X_OK):
        return own, "of the UCX in use"
    found = shutil.which("ucx_perftest")
    if found is not None:
        return Path(found), "in PATH"
    spec = importlib.util.find_spec("libucx")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "bin" / "ucx_perftest"
        if os.access(path, os.X_OK):
            return path, f"of the wheel libucx {version_of('libucx-cu12')}, not the UCX in use"
    raise UnavailableError(
        "ucx_perftest is neither beside UCX, in PATH, nor in the wheel libucx-cu12: install that, "
        "or UCX's programs (package ucx-utils)"
    )
