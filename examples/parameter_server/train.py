#!/usr/bin/env python3
"""A parameter server: workers train models whose weights another process keeps.

    python examples/parameter_server/train.py --workers 3
    mpirun -n 4 python examples/parameter_server/train.py

One process serves, a provider for each model; the others work. A worker pulls the latest weights
straight from the server's memory, computes a gradient of pictures of its own, and pushes it by a
call that it does not wait for while it works on the next model. Without mpirun, this program
starts the workers itself; under it, rank 0 serves.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from model import Network, Pictures, accuracy
from service import Parameters, StaleGradientError

from proxystore_hpc.exceptions import PeerLostError, ProxyStoreHpcError
from proxystore_hpc.rpc import Engine, RpcFuture

ADDRESS, SECRET = "PARAMETER_SERVER_ADDRESS", "PARAMETER_SERVER_SECRET"
TEST_PICTURES = 2000


def main() -> int:
    options = parse_arguments()
    world = mpi_world()
    if world is not None:
        return run_under_mpi(world, options)
    if ADDRESS in os.environ:
        return work(os.environ[ADDRESS], os.environ[SECRET], options.number, options)
    return run_with_processes(options)


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workers", type=positive, default=2, help="processes to start (%(default)s)")
    add("--models", type=positive, default=2, help="trained at the same time (%(default)s)")
    add("--updates", type=positive, default=300, help="gradients for each model (%(default)s)")
    add("--hidden", type=positive, default=128, help="units of the hidden layer (%(default)s)")
    add("--batch", type=positive, default=64, help="pictures for a gradient (%(default)s)")
    add("--rate", type=float, default=0.05, help="learning rate (%(default)s)")
    add("--momentum", type=float, default=0.5, help="of the updates (%(default)s)")
    add("--seed", type=int, default=1847, help="of pictures and weights (%(default)s)")
    add("--listen", metavar="HOST:PORT", help="where workers on other nodes reach the server")
    add("--number", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a positive number is needed, not {text}")
    return number


def mpi_world() -> Any:
    """The communicator of all ranks, if mpirun started this program."""
    if not {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"} & os.environ.keys():
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD


def run_under_mpi(world: Any, options: argparse.Namespace) -> int:
    """Serves on rank 0, works on the others."""
    if world.size < 2:
        raise SystemExit("one rank serves and the others work: mpirun -n 2 at least")
    secret = world.bcast(secrets.token_hex(), root=0)
    if world.rank != 0:
        if work(world.bcast(None, root=0), secret, world.rank, options) != 0:
            world.Abort(1)
        world.Barrier()
        return 0
    with Engine(name="server", secret=secret, listen=options.listen, handlers=2) as engine:
        models = serve(engine, options)
        world.bcast(engine.address, root=0)
        follow(models, options, lambda: True)
        world.Barrier()  # until then workers ask for the latest version
        conclude(engine, models, world.size - 1, options)
    return 0


def run_with_processes(options: argparse.Namespace) -> int:
    """Serves here, and starts the workers."""
    secret = secrets.token_hex()
    with Engine(name="server", secret=secret, listen=options.listen, handlers=2) as engine:
        models = serve(engine, options)
        told = {ADDRESS: engine.address, SECRET: secret, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *sys.argv, "--number"]
        workers = [
            subprocess.Popen([*command, str(number)], env={**os.environ, **told})
            for number in range(1, options.workers + 1)
        ]
        try:
            follow(models, options, lambda: any(worker.poll() is None for worker in workers))
            failed = sum(worker.wait(timeout=30) != 0 for worker in workers)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
                worker.wait()
        if failed:
            print(f"{failed} of {len(workers)} workers failed", file=sys.stderr)
            return 1
        conclude(engine, models, len(workers), options)
    return 0


def serve(engine: Engine, options: argparse.Namespace) -> list[Parameters]:
    """Registers a provider for each model."""
    network = Network(options.hidden)
    models = []
    for number in range(options.models):
        weights = network.initial(options.seed + number)
        provider = Parameters(engine, weights, options.rate, options.momentum)
        models.append(engine.register_provider(provider, number))
    size = models[0].weights.nbytes / 1e6
    print(f"serving {len(models)} models of {size:.1f} MB at {engine.address}", flush=True)
    return models


def follow(
    models: list[Parameters], options: argparse.Namespace, working: Callable[[], bool]
) -> None:
    """Prints how far the models are, until all are trained or nobody works any more."""
    told, told_at = -1, 0.0
    while True:
        alive = working()
        done = min(options.updates, *(model.version for model in models))
        tenth = 10 * done // options.updates
        if tenth != told or time.monotonic() > told_at + 2:
            losses = [loss for model in models for loss in model.losses.values()]
            mean = f", loss {sum(losses) / len(losses):.3f}" if losses else ""
            print(f"{done:6} of {options.updates} updates{mean}", flush=True)
            told, told_at = tenth, time.monotonic()
        if done == options.updates or not alive:
            return
        time.sleep(0.02)


def conclude(
    engine: Engine, models: list[Parameters], workers: int, options: argparse.Namespace
) -> None:
    """Prints what was reached, and what the calls cost."""
    network = Network(options.hidden)
    inputs, labels = Pictures(options.seed, stream=0).draw(TEST_PICTURES)
    answers = [network.chances(model.weights, inputs) for model in models]
    for number, (model, chances) in enumerate(zip(models, answers, strict=True)):
        print(
            f"model {number}: {model.version} updates by {workers} workers, {model.refused} came "
            f"too late, accuracy {accuracy(chances, labels):.3f}"
        )
    for facts in engine.stats()["served"]:
        if facts["name"] == "parameters.push":
            each = 1e6 * facts["handler_time"]["seconds"] / max(1, facts["handler_time"]["count"])
            print(
                f"model {facts['provider']}: {facts['calls']} pushes, "
                f"{facts['bytes_in'] / 1e6:.0f} MB, {each:.0f} us each in the handler"
            )
    print(f"together: accuracy {accuracy(np.mean(answers, axis=0), labels):.3f}", flush=True)


def work(address: str, secret: str, number: int, options: argparse.Namespace) -> int:
    """A worker: pulls weights and pushes gradients until all models are trained."""
    network, pictures = Network(options.hidden), Pictures(options.seed, stream=number)
    weights = np.empty(network.size, "f4")
    with Engine(name=f"worker-{number}", secret=secret) as engine:
        try:
            server = engine.lookup(address)
            models = [Parameters.handle(server, which) for which in range(options.models)]
            buffers = [model.buffers() for model in models]
            training = dict(enumerate(models))
            pushed: dict[int, RpcFuture] = {}
            while training:
                for which, model in list(training.items()):
                    if which in pushed:
                        settle(pushed.pop(which))
                    version = model.latest()
                    if version >= options.updates:
                        del training[which]
                        continue
                    buffers[which][version % len(buffers[which])].pull(engine, weights)
                    loss, gradient = network.gradient(weights, *pictures.draw(options.batch))
                    pushed[which] = model.push.submit(gradient, version)
                    model.report(number, loss)
        except PeerLostError as error:
            print(f"worker {number}: the server is gone: {error}", file=sys.stderr)
            return 1
        except ProxyStoreHpcError as error:
            print(f"worker {number}: {error}", file=sys.stderr)
            return 1
    return 0


def settle(push: RpcFuture) -> None:
    """Waits for a push. One that came too late is forgotten: the next has newer weights."""
    with suppress(StaleGradientError):
        push.result()


if __name__ == "__main__":
    sys.exit(main())
