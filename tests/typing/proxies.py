"""Attributes of proxies, as mypy sees them with our plugin; checked as a part of the linter.

An attribute that is not there has to be an error: a comment that ignores none is one, too.
"""

from __future__ import annotations

from typing_extensions import assert_type

from proxystore_hpc.proxy import Proxy, ProxyOr


class Model:
    size: int = 3

    def predict(self, value: float) -> list[float]:
        return [value] * self.size

    @property
    def name(self) -> str:
        return "model"


def use(model: Proxy[Model]) -> None:
    assert_type(model, Proxy[Model])
    assert_type(model.size, int)
    assert_type(model.name, str)
    assert_type(model.predict(1.0), list[float])
    assert_type(model.predict(1.0)[0], float)
    assert_type(model.__proxy_resolved__, bool)
    _ = model.no_such  # type: ignore[attr-defined]
    model.predict("text")  # type: ignore[arg-type]


def use_either(model: ProxyOr[Model], many: Proxy[Model | list[int]]) -> None:
    assert_type(model.size, int)
    assert_type(model.predict(2.0), list[float])
    _ = many.size  # type: ignore[union-attr]
