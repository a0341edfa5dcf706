"""The service: one provider for each model, which keeps its weights and applies gradients."""

from __future__ import annotations

import threading

import numpy as np
from model import Array

from proxystore_hpc.rpc import Bulk, Engine, Provider, rpc

STALENESS = 8
"""Updates that may have happened between the weights of a gradient and its arrival."""


class StaleGradientError(Exception):
    """A gradient came too late to be of use."""


class Parameters(Provider, service="parameters"):
    """The weights of one model.

    Each version lies in a buffer of its own until `STALENESS` further ones have been made. Workers
    read them one-sidedly, at any time: whoever is so slow that a buffer changed while it was read
    has the gradient made of it refused.
    """

    def __init__(self, engine: Engine, weights: Array, rate: float, momentum: float) -> None:
        self._rate = rate
        self._momentum = momentum
        self._velocity = np.zeros_like(weights)
        # In registered memory, which peers read at the least cost.
        self._versions = [engine.empty(weights.shape, "f4") for _ in range(STALENESS + 2)]
        self._versions[0][:] = weights
        self._exposed = [engine.expose(buffer, "r") for buffer in self._versions]
        self._lock = threading.Lock()
        self.version = 0
        self.refused = 0
        self.losses: dict[int, float] = {}
        engine.on_finalize(self.close)

    @property
    def weights(self) -> Array:
        """The latest."""
        return self._versions[self.version % len(self._versions)]

    @rpc
    def buffers(self) -> list[Bulk]:
        """Where the weights lie: those of version `v` in `buffers[v % len(buffers)]`."""
        return self._exposed

    @rpc
    def latest(self) -> int:
        """The version to pull."""
        return self.version

    @rpc
    def push(self, gradient: Array, version: int) -> int:
        """Applies a gradient made of the weights of `version`; returns the new version."""
        with self._lock:
            if self.version - version > STALENESS:
                self.refused += 1
                raise StaleGradientError(f"made of version {version}, now there is {self.version}")
            self._velocity *= self._momentum
            self._velocity -= self._rate * gradient
            following = self._versions[(self.version + 1) % len(self._versions)]
            np.add(self.weights, self._velocity, out=following)
            self.version += 1
            return self.version

    @rpc(one_way=True)
    def report(self, worker: int, loss: float) -> None:
        """Notes how a worker fares; it does not wait for this."""
        self.losses[worker] = loss

    def close(self) -> None:
        """Takes the weights back."""
        for bulk in self._exposed:
            bulk.close()
