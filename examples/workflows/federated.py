#!/usr/bin/env python3
"""Federated averaging: clients improve a model on data of their own, which nobody else sees.

    python examples/workflows/federated.py [--executor processes|dask|parsl|colmena]
                                           [--parameters N]

In each round every client gets the model's weights, takes some steps down the gradient of its own
least squares, and returns its weights; their mean is the model of the next round (McMahan et al.,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017). The same runs
with weights as pickles, and as proxies.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from running import Carried, arguments, compare

SAMPLES = 16
STEPS = 5


@functools.lru_cache(maxsize=8)
def data_of(client: int, parameters: int) -> tuple[Any, Any]:
    """What only this client has: features, and what they should give."""
    truth = np.random.default_rng(0).standard_normal(parameters) / np.sqrt(parameters)
    generator = np.random.default_rng(1 + client)
    features = generator.standard_normal((SAMPLES, parameters))
    return features, features @ truth + 0.01 * generator.standard_normal(SAMPLES)


def train(weights: Any, client: int) -> Any:
    """A client's turn: its weights, and behind them its loss before."""
    weights = np.asarray(weights)
    features, targets = data_of(client, len(weights))
    loss = float(np.mean((features @ weights - targets) ** 2))
    for _ in range(STEPS):
        wrong = features @ weights - targets
        weights = weights - features.T @ wrong / len(weights)
    return np.append(weights, loss)


def learn(executor: Carried, clients: int, rounds: int, parameters: int) -> list[float]:
    """The mean loss before each round."""
    weights = np.zeros(parameters)
    losses = []
    for _ in range(rounds):
        futures = [executor.submit(train, weights, client) for client in range(clients)]
        answers = [future.result() for future in futures]
        for answer in answers:
            executor.count(train, (weights, 0), answer)
        mean = np.mean([np.asarray(answer) for answer in answers], axis=0)
        weights, loss = mean[:-1], float(mean[-1])
        losses.append(loss)
    return losses


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=200_000, help="of the model")
    options = parser.parse_args()
    losses = compare(
        options,
        max(64 << 20, 32 * 8 * options.parameters * options.clients),
        lambda executor: learn(executor, options.clients, options.rounds, options.parameters),
    )
    print("loss by round: " + " ".join(f"{loss:.4f}" for loss in losses["proxies"]))
    same = np.allclose(losses["pickles"], losses["proxies"])
    better = losses["proxies"][-1] < losses["proxies"][0]
    print("both ways agree" if same and better else "the ways differ, or nothing was learned")
    return 0 if same and better else 1


if __name__ == "__main__":
    # Parsl finds the tasks in a module, not in a script.
    import federated

    raise SystemExit(federated.main())
