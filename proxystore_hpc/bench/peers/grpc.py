"""gRPC's unary calls over loopback: bytes as they are, no protobuf."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from proxystore_hpc.bench.contestant import Burst, Operation
from proxystore_hpc.bench.peers.peer import Peer
from proxystore_hpc.bench.peers.sides import Side, asked

__all__ = ["CONTESTANTS", "GrpcSide"]

# As large as ours may be.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SERVICE, METHOD = "benchmark", "echo"


class GrpcSide(Side):
    """A server with one method, or a channel to it."""

    def __init__(self, nbytes: int, peer: Any) -> None:
        super().__init__(nbytes, peer)
        import grpc

        if peer:
            self.channel = grpc.insecure_channel(peer, options=OPTIONS)
            self.method = self.channel.unary_unary(f"/{SERVICE}/{METHOD}")
            return
        self.server = grpc.server(ThreadPoolExecutor(2), options=OPTIONS)
        echo = grpc.unary_unary_rpc_method_handler(lambda data, _: data)
        handlers = grpc.method_handlers_generic_handler(SERVICE, {METHOD: echo})
        self.server.add_generic_rpc_handlers([handlers])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def address(self) -> str:
        """Where the server listens."""
        return f"127.0.0.1:{self.port}"

    def echo(self, data: Any) -> Any:
        """What the call returns."""
        return self.method(data)

    def close(self) -> None:
        """Ends server or channel."""
        if self.peer:
            self.channel.close()
        else:
            self.server.stop(None).wait()


def opener(operation: Operation, nbytes: int) -> AbstractContextManager[Burst]:
    """A server and a client."""
    return asked(f"{__name__}:GrpcSide", operation, nbytes)


CONTESTANTS = (
    Peer(
        "grpc",
        "grpcio: unary calls with bytes, over TCP on loopback",
        frozenset({Operation.ECHO}),
        opener,
        {"grpc": "grpcio"},
        most=1 << 30,
    ),
)
