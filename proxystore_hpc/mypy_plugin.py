"""A plugin for mypy that gives attributes of a `Proxy[T]` the types that they have on a `T`.

Without it they are `Any`. In pyproject.toml:

    [tool.mypy]
    plugins = ["proxystore_hpc.mypy_plugin"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mypy.maptype import map_instance_to_supertype
from mypy.plugin import AttributeContext, Plugin
from mypy.typeops import make_simplified_union
from mypy.types import AnyType, Instance, Type, TypeVarType, flatten_nested_unions, get_proper_type

__all__ = ["ProxyStoreMypyPlugin", "plugin"]

_PROXY = "proxystore_hpc._proxy.Proxy"


class ProxyStoreMypyPlugin(Plugin):
    """Looks attributes of proxies up on the types that they stand for."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """The look-up of an attribute which the proxy itself does not have."""
        owner, _, name = fullname.rpartition(".")
        if owner != _PROXY or self.lookup_fully_qualified(fullname) is not None:
            return None
        return partial(_attribute, name)


def _attribute(name: str, context: AttributeContext) -> Type:
    checker: Any = context.api
    found: list[Type] = []
    for target in _targets(context.type):
        if isinstance(target, (AnyType, TypeVarType)):
            return context.default_attr_type
        found.append(
            checker.expr_checker.analyze_external_member_access(name, target, context.context)
        )
    return make_simplified_union(found) if found else context.default_attr_type


def _targets(kind: Type) -> Iterator[Type]:
    """What the proxies among the members of a type stand for."""
    for item in flatten_nested_unions([kind]):
        member = get_proper_type(item)
        if not isinstance(member, Instance):
            continue
        for base in member.type.mro:
            if base.fullname == _PROXY:
                (target,) = map_instance_to_supertype(member, base).args
                yield get_proper_type(target)


def plugin(version: str) -> type[ProxyStoreMypyPlugin]:
    """What mypy asks for; the version is mypy's."""
    return ProxyStoreMypyPlugin
