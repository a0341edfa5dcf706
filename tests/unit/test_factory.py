"""Factories."""

from __future__ import annotations

import operator
import pickle

import pytest

from proxystore_hpc.factory import Factory, LambdaFactory, SimpleFactory
from proxystore_hpc.proxy import Proxy


def test_simple_factory() -> None:
    target = [1]
    factory = SimpleFactory(target)
    assert factory() is factory.resolve() is target
    assert pickle.loads(pickle.dumps(factory))() == [1]


def test_lambda_factory() -> None:
    assert LambdaFactory(lambda: 3)() == 3
    assert LambdaFactory(pow, 2, exp=5)() == 32
    assert pickle.loads(pickle.dumps(LambdaFactory(operator.add, 1, 2)))() == 3


def test_factory_is_abstract() -> None:
    with pytest.raises(TypeError):
        Factory()  # type: ignore[abstract]


def test_deriving() -> None:
    class Answer(Factory[int]):
        def resolve(self) -> int:
            return 42

    assert Proxy(Answer()) == 42
