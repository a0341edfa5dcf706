"""What calls are compared with: pyzmq, gRPC, and UCX's own measuring program.

Servers are roles for `harness.Companion`; the context managers give functions that call them once.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import harness

from proxystore_hpc.bench.contestant import UnavailableError
from proxystore_hpc.bench.limits.perftest import find_program

Echo = Callable[[bytes], object]
# As large as ours may be.
GRPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
GRPC_METHOD = "/benchmark/echo"


class ZmqServer:
    """Role: a REP socket that echoes, served by a thread."""

    def __init__(self, url: str) -> None:
        import threading

        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REP)
        self.socket.bind(url)
        self.url = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def address(self) -> str:
        return self.url

    def _run(self) -> None:
        import zmq

        while True:
            try:
                self.socket.send(self.socket.recv(copy=False), copy=False)
            except zmq.ContextTerminated:
                self.socket.close(0)
                return

    def close(self) -> None:
        self.context.term()
        self.thread.join()


class GrpcServer:
    """Role: a unary method that echoes; bytes as they are, no protobuf."""

    def __init__(self) -> None:
        import grpc

        self.server = grpc.server(ThreadPoolExecutor(2), options=GRPC_OPTIONS)
        echo = grpc.unary_unary_rpc_method_handler(lambda data, _: data)
        service, _, method = GRPC_METHOD.strip("/").partition("/")
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {method: echo})]
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.stop(None).wait()


@contextmanager
def zmq_echo(transport: str) -> Iterator[Echo]:
    """Echoes by pyzmq REQ/REP over `"ipc"` or `"tcp"`.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import zmq
    except ImportError as error:
        raise UnavailableError(f"pip install pyzmq ({error})") from error
    with tempfile.TemporaryDirectory() as scratch:
        url = f"ipc://{scratch}/socket" if transport == "ipc" else "tcp://127.0.0.1:*"
        with (
            harness.Companion("rpc_peers:ZmqServer", url=url) as server,
            zmq.Context() as context,
            context.socket(zmq.REQ) as request,
        ):
            request.setsockopt(zmq.LINGER, 0)
            request.connect(server.call("address"))

            def echo(data: bytes) -> object:
                large = len(data) >= 65536
                request.send(data, copy=not large)
                answer = request.recv(copy=not large)
                return answer.buffer if large else answer

            yield echo


@contextmanager
def grpc_echo() -> Iterator[Echo]:
    """Echoes by gRPC's unary calls.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import grpc
    except ImportError as error:
        raise UnavailableError(f"pip install grpcio ({error})") from error
    with (
        harness.Companion("rpc_peers:GrpcServer") as server,
        grpc.insecure_channel(server.call("address"), options=GRPC_OPTIONS) as channel,
    ):
        yield channel.unary_unary(GRPC_METHOD)


class Perftest:
    """`ucx_perftest` with given transports.

    Raises:
        UnavailableError: There is none.
    """

    def __init__(self, tls: str, interface: str = "") -> None:
        path, self.whose = find_program()
        self.command = str(path)
        self.environment = {**os.environ, "UCX_TLS": f"{tls},self", "UCX_WARN_UNUSED_ENV_VARS": "n"}
        if interface:
            self.environment["UCX_NET_DEVICES"] = interface
        libraries = path.parent.parent / "lib"
        if "site-packages" in libraries.parts:
            before = os.environ.get("LD_LIBRARY_PATH")
            path = f"{libraries}{os.pathsep}{before}" if before else str(libraries)
            self.environment["LD_LIBRARY_PATH"] = path

    def round_trip(self, iterations: int) -> float:
        """Seconds there and back of 8 bytes: the median.

        Raises:
            UnavailableError: It does not run here.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = self._start("-p", str(port))
        try:
            client = ["127.0.0.1", "-p", str(port), "-t", "ucp_am_lat", "-s", "8", "-f"]
            for _ in range(50):
                time.sleep(0.1)
                told = self._run(*client, "-n", str(iterations), "-w", str(iterations // 10))
                final = re.search(r"(?:^|Final:)\s+\d+\s+([\d.]+)", told, re.MULTILINE)
                if final is not None:
                    return 2e-6 * float(final[1])
                if server.poll() is not None:
                    break
        finally:
            server.kill()
            server.wait()
        raise UnavailableError(f"{self.command} failed: {told.strip()[-200:]}")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.command, *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.command, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout


def open_all(stack: ExitStack) -> tuple[dict[str, Echo], dict[str, str]]:
    """Echo functions by name, and why others are missing; closed with the stack."""
    openings: dict[str, Callable[[], Any]] = {
        "pyzmq REQ/REP, ipc": lambda: zmq_echo("ipc"),
        "pyzmq REQ/REP, tcp": lambda: zmq_echo("tcp"),
        "gRPC unary, tcp": grpc_echo,
    }
    ready: dict[str, Echo] = {}
    missing: dict[str, str] = {}
    for name, opening in openings.items():
        try:
            ready[name] = stack.enter_context(opening())
        except (UnavailableError, harness.CompanionError) as error:
            missing[name] = str(error)
    return ready, missing
