"""Many clients of one server, and a bound on what all of them get."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from support import procfs, tcp

from proxystore_hpc.serialize import loads
from proxystore_hpc.tcp import wire
from proxystore_hpc.tcp.client import TcpClient

MIB = 1 << 20
IDLE, BUSY = 500, 50
RATE = 125_000_000


def memory(pid):
    """Bytes of a process that are its own and resident."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("Private_D", "Private_C"))]
    return sum(int(line.split()[1]) * 1024 for line in lines)


@pytest.mark.timeout(120)
def test_many_idle_and_busy_clients_share_a_rate(make_peer):
    """1 Gbit/s in all; the server's memory does not grow with what is under way."""
    owner = make_peer(name="store", capacity="96MiB")
    (endpoint,), pid = owner(lambda here: tcp.serve(here, limits={"rate": RATE}))
    key = owner(tcp.put_numbers, 4 * MIB)
    (small,) = owner(tcp.put, "x")
    idle = []
    for number in range(IDLE):
        raw = socket.create_connection((endpoint.host, endpoint.port))
        raw.sendall(wire.encode_hello(0, 0))
        assert len(raw.recv(wire.HELLO.size, socket.MSG_WAITALL)) == wire.HELLO.size
        ask = wire.encode_batch(wire.Batch([small], False, 5.0))
        raw.sendall(wire.encode_request(wire.EXISTS, number, ask))
        assert raw.recv(100)
        idle.append(raw)
    procfs.wait_until(lambda: procfs.thread_count(pid) < 40, "silent ones have no thread")
    before, wrong, counts = memory(pid), [], [0] * BUSY
    began = time.monotonic()

    def work(number):
        with TcpClient(endpoints=[endpoint], streams=1) as client:
            for _ in range(3):
                if not (loads(client.get(key)) == tcp.numbers(4 * MIB)).all():
                    wrong.append(number)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(BUSY)]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, memory(pid))
        time.sleep(0.1)
    elapsed = time.monotonic() - began
    assert not wrong
    assert counts == [3] * BUSY
    assert elapsed > 0.9 * BUSY * 3 * 4 * MIB / RATE
    assert peak - before < 64 * MIB
    # Those that were silent are still served.
    idle[0].sendall(wire.encode_request(wire.PING, 1, b""))
    assert idle[0].recv(100)
    for raw in idle:
        raw.close()
    owner(tcp.close)
