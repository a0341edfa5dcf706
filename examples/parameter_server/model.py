"""A small classifier in NumPy: its weights are one array, and so is their gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

INPUTS, CLASSES = 784, 10
NOISE = 6.0


class Network:
    """One hidden layer of tanh, then softmax. `weights` is always an array of `size` float32."""

    def __init__(self, hidden: int) -> None:
        self._shapes = ((INPUTS, hidden), (hidden,), (hidden, CLASSES), (CLASSES,))
        self.size = sum(int(np.prod(shape)) for shape in self._shapes)

    def initial(self, seed: int) -> Array:
        """Weights to begin with."""
        weights = np.zeros(self.size, "f4")
        random = np.random.default_rng(seed)
        for part in self._parts(weights):
            if part.ndim == 2:
                part[:] = random.normal(0, len(part) ** -0.5, part.shape)
        return weights

    def gradient(self, weights: Array, inputs: Array, labels: Labels) -> tuple[float, Array]:
        """Mean loss over a batch, and its gradient, a new array."""
        _, _, w2, _ = self._parts(weights)
        hidden, chances = self._forward(weights, inputs)
        rows = np.arange(len(labels))
        loss = -float(np.log(chances[rows, labels] + 1e-9).mean())
        chances[rows, labels] -= 1
        chances /= len(labels)
        back = (chances @ w2.T) * (1 - hidden**2)
        gradient = np.empty_like(weights)
        g1, c1, g2, c2 = self._parts(gradient)
        g1[:], c1[:] = inputs.T @ back, back.sum(0)
        g2[:], c2[:] = hidden.T @ chances, chances.sum(0)
        return loss, gradient

    def chances(self, weights: Array, inputs: Array) -> Array:
        """Probability of each class for each input."""
        return self._forward(weights, inputs)[1]

    def _forward(self, weights: Array, inputs: Array) -> tuple[Array, Array]:
        w1, b1, w2, b2 = self._parts(weights)
        hidden = np.tanh(inputs @ w1 + b1)
        scores = hidden @ w2 + b2
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return hidden, powers / powers.sum(1, keepdims=True)

    def _parts(self, weights: Array) -> Iterator[Array]:
        start = 0
        for shape in self._shapes:
            end = start + int(np.prod(shape))
            yield weights[start:end].reshape(shape)
            start = end


class Pictures:
    """Noisy pictures of ten patterns. The patterns depend on `seed`, what is drawn on `stream`."""

    def __init__(self, seed: int, stream: int) -> None:
        self._patterns = np.random.default_rng(seed).normal(size=(CLASSES, INPUTS)).astype("f4")
        self._random = np.random.default_rng([seed, stream])

    def draw(self, count: int) -> tuple[Array, Labels]:
        """So many pictures and what they show."""
        labels = self._random.integers(CLASSES, size=count)
        noise = self._random.normal(0, NOISE, (count, INPUTS)).astype("f4")
        return self._patterns[labels] + noise, labels


def accuracy(chances: Array, labels: Labels) -> float:
    """Share of the inputs whose most likely class is right."""
    return float((chances.argmax(1) == labels).mean())
