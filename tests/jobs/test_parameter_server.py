"""The example of a service: a parameter server, with processes of its own and under mpirun."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support import procfs
from support.doors import require_door
from support.job import StartJob

from proxystore_hpc import Engine

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "parameter_server"
TRAIN = FOLDER / "train.py"
FEW = ("--updates", "40", "--hidden", "16", "--batch", "16")


@pytest.fixture(autouse=True)
def needs_ucx() -> None:
    require_door("ucx")


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(TRAIN), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def check_updates(output: str, models: int, workers: int, updates: int) -> None:
    told = re.findall(r"^model (\d): (\d+) updates by (\d+) workers, ", output, re.MULTILINE)
    assert [int(number) for number, _, _ in told] == list(range(models))
    for _, made, by in told:
        # A worker that pulled before the last update pushes once more.
        assert updates <= int(made) < updates + workers
        assert int(by) == workers
    assert f"{updates} of {updates} updates, loss " in output


def test_workers_train_a_model_that_recognises_most_pictures() -> None:
    output = run("--workers", "2", "--models", "2")
    check_updates(output, models=2, workers=2, updates=300)
    reached = [float(share) for share in re.findall(r"accuracy ([\d.]+)", output)]
    assert len(reached) == 3
    # One of ten would be chance.
    assert min(reached) > 0.8
    assert len(re.findall(r"^model \d: \d+ pushes, ", output, re.MULTILINE)) == 2


def test_under_mpirun_rank_0_serves_the_others(start_job: StartJob) -> None:
    output = start_job(3, TRAIN, *FEW, OMP_NUM_THREADS="1").succeed()
    check_updates(output, models=2, workers=2, updates=40)


def test_one_rank_is_too_few(start_job: StartJob) -> None:
    job = start_job(1, TRAIN, *FEW)
    assert "mpirun -n 2 at least" in job.end()
    assert job.process.returncode != 0


def test_help_and_mistakes() -> None:
    output = run("--help")
    assert "mpirun -n 4 python examples/parameter_server/train.py" in output
    assert "--updates" in output
    done = subprocess.run(
        [sys.executable, str(TRAIN), "--workers", "0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "a positive number is needed" in done.stderr


def test_workers_end_with_their_server() -> None:
    server = subprocess.Popen(
        [sys.executable, str(TRAIN), "--updates", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    while "loss" not in (line := server.stdout.readline()):
        assert line, "the server ended"
    workers = procfs.children(server.pid)
    assert len(workers) == 2
    os.kill(server.pid, signal.SIGKILL)
    _, told = server.communicate(timeout=30)
    procfs.wait_until(lambda: not any(map(procfs.exists, workers)), "the workers end")
    assert told.count("the server is gone") == 2
    assert "Traceback" not in told


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The example's modules, by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("model", "service")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def test_a_gradient_that_comes_too_late_is_refused(modules: dict[str, ModuleType]) -> None:
    service = modules["service"]
    weights = np.zeros(4, "f4")
    with Engine("shm", capacity="16MiB") as engine:
        parameters = service.Parameters(engine, weights, rate=1.0, momentum=0.0)
        for version in range(service.STALENESS + 1):
            assert parameters.push(np.ones(4, "f4"), version) == version + 1
        with pytest.raises(service.StaleGradientError, match="made of version 0"):
            parameters.push(np.ones(4, "f4"), 0)
        assert parameters.push(np.ones(4, "f4"), 1) == service.STALENESS + 2
        assert parameters.refused == 1
        assert parameters.weights.tolist() == [-(service.STALENESS + 2)] * 4


def test_weights_stay_as_they_are_while_they_may_be_used(modules: dict[str, ModuleType]) -> None:
    service = modules["service"]
    with Engine("shm", capacity="16MiB") as engine:
        parameters = service.Parameters(engine, np.zeros(4, "f4"), rate=1.0, momentum=0.0)
        first = parameters.weights
        for version in range(service.STALENESS + 1):
            assert first.tolist() == [0] * 4
            parameters.push(np.ones(4, "f4"), version)


def test_the_gradient_is_that_of_the_loss(modules: dict[str, ModuleType]) -> None:
    model = modules["model"]
    network = model.Network(hidden=3)
    inputs, labels = model.Pictures(seed=1, stream=1).draw(8)
    inputs *= 0.1
    weights = network.initial(seed=2)
    _, gradient = network.gradient(weights, inputs, labels)
    for place in (0, 784 * 3, 784 * 3 + 3, network.size - 1):
        around = []
        for step in (0.01, -0.01):
            moved = weights.copy()
            moved[place] += step
            around.append(network.gradient(moved, inputs, labels)[0])
        assert gradient[place] == pytest.approx((around[0] - around[1]) / 0.02, abs=2e-3)
