"""A gateway leads to what is kept, as it leads to any owner."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np


def test_what_is_kept_is_reached_from_outside(keeper, make_peer):
    command = [sys.executable, "-m", "proxystore_hpc", "gateway", "--json", "--plain"]
    gateway = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    try:
        told = json.loads(gateway.stdout.readline())
        owner = make_peer(name="store", keep=True, capacity="16MiB", gateway=told)
        outsider = make_peer(name="store", doors=("tcp",), capacity="16MiB")
        first, second = owner(
            lambda here: here.store.put_batch([np.arange(1000), np.arange(300_000)])
        )
        assert outsider(lambda here: int(here.store.get(first).sum())) == 499_500
        owner.kill()
        assert outsider(lambda here: len(here.store.get(second))) == 300_000
        outsider(lambda here: here.store.evict(second))
        assert not outsider(lambda here: here.store.exists(second))
    finally:
        gateway.terminate()
        gateway.wait(20)
        gateway.stdout.close()
