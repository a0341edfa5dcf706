#!/usr/bin/env python3
"""Watches a simulation from a laptop, and steers it.

On the cluster, where `--listen` is what the laptop reaches, or the far end of `ssh -L`:

    python examples/laptop.py simulate run.keys --listen 127.0.0.1:8443 --token 5eed

On the laptop, which needs neither MPI nor UCX, Linux or a compiler, with a copy of run.keys:

    python examples/laptop.py watch run.keys
    python examples/laptop.py heat run.keys 500 --token 5eed --order order.key   # copy it back
    python examples/laptop.py stop run.keys

The simulation is a rod that is heated in the middle. Its temperature is registered in place and
read while it changes. An order is an object that the laptop stores in the simulation's memory; its
key goes back as a file. To stop is to evict the object that means "go on".
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from proxystore_hpc import Store
from proxystore_hpc.exceptions import DoorUnavailableError, ObjectEvictedError, OwnerGoneError
from proxystore_hpc.store.keyfile import load_key

CELLS = 200
BARS = " ▁▂▃▄▅▆▇█"


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("simulate", "watch", "heat", "stop"):
        command = commands.add_parser(name)
        command.add_argument("file", type=Path, help="keys that the simulation hands out")
        if name == "simulate":
            command.add_argument("--listen", default="127.0.0.1:0", help="address of its server")
            command.add_argument("--gateway", help="address of a gateway, for keys to name")
            command.add_argument(
                "--state", help="keeps its key pair, instead of a file below $HOME"
            )
            command.add_argument("--seconds", type=float, default=3600, help="how long, at most")
        if name in ("simulate", "heat"):
            command.add_argument("--token", default="", help="secret of those who may give orders")
            command.add_argument("--order", type=Path, default=Path("order.key"))
        if name == "watch":
            command.add_argument("--frames", type=int, default=0, help="end after so many")
        if name == "heat":
            command.add_argument("power", type=float, help="degrees a second")
    options = parser.parse_args()
    try:
        return {"simulate": simulate, "watch": watch, "heat": heat, "stop": stop}[options.command](
            options
        )
    except (DoorUnavailableError, ObjectEvictedError, OwnerGoneError):
        print("the simulation has ended, or cannot be reached from here")
        return 0


def simulate(options: argparse.Namespace) -> int:
    """The program on the cluster."""
    served = {"listen": options.listen, "put_token": options.token, "state": options.state}
    rod = np.zeros(CELLS)
    power = 100.0
    with (
        Store("rod", capacity="64MiB", tcp=served, gateway=options.gateway) as store,
        store.register(rod) as live,
    ):
        go_on = store.put("go on")
        options.file.write_bytes(pickle.dumps({"rod": live.key, "go on": go_on}))
        end = time.monotonic() + options.seconds
        while store.exists(go_on) and time.monotonic() < end:
            if options.order.exists():
                key = load_key(options.order)
                options.order.unlink()
                power = store.get(key)["power"]  # it lies here already
                store.evict(key)
                print(f"heating with {power:g} degrees a second", flush=True)
            with live.writing():
                rod[1:-1] += 0.2 * (rod[:-2] - 2 * rod[1:-1] + rod[2:])
                rod[CELLS // 2] += 0.01 * power
            time.sleep(0.01)
    print("stopped")
    return 0


def outside(options: argparse.Namespace) -> tuple[Store, dict[str, Any]]:
    """What a laptop has: a store that reads over TCP, and the keys."""
    token = {"put_token": options.token} if "token" in options else {}
    store = Store("laptop", doors=("tcp",), timeout=10, options=token)
    return store, pickle.loads(options.file.read_bytes())


def watch(options: argparse.Namespace) -> int:
    """Draws the temperature until the simulation ends."""
    store, keys = outside(options)
    frame = 0
    with store:
        while not options.frames or frame < options.frames:
            rod = store.get_or_raise(keys["rod"])  # live memory is never cached
            scale = max(float(rod.max()), 1e-9)
            marks = (rod.reshape(-1, 4).mean(axis=1) / scale * (len(BARS) - 1)).round().astype(int)
            print("".join(BARS[mark] for mark in marks), f"{rod.max():8.2f}", flush=True)
            frame += 1
            time.sleep(0.2)
    return 0


def heat(options: argparse.Namespace) -> int:
    """Stores an order in the simulation's memory."""
    store, keys = outside(options)
    with store:
        order = store.put({"power": options.power}, to=keys["rod"])
        store.export(order, options.order)
    return 0


def stop(options: argparse.Namespace) -> int:
    """Takes away what lets the simulation go on."""
    store, keys = outside(options)
    with store:
        store.evict(keys["go on"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
