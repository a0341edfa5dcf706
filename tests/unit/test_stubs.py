"""The .pyi files describe the extension modules that are built: every name, every parameter."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import proxystore_hpc
from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.ucx_runtime import import_ucx_module

PACKAGE = Path(proxystore_hpc.__file__).parent
# Enough to read pybind11's docstrings: "get(self: T, key: bytes, n: int = 0) -> T".
PARAMETER = re.compile(r"(?P<name>\w+)(?:: (?P<type>[^=]*?))?(?: = (?P<default>.*))?", re.DOTALL)


def module_of(name: str) -> ModuleType:
    if name != "_ucx":
        return importlib.import_module(f"proxystore_hpc.{name}")
    try:
        return import_ucx_module()
    except DoorUnavailableError as error:
        pytest.skip(f"no _ucx here: {error.reason}")


def stub_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.pyi").read_text())


def public(names: Iterator[str] | list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def definitions(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef) and known_to_checkers_only(node):
            continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def known_to_checkers_only(node: ast.ClassDef) -> bool:
    return node.name.startswith("_") or "TypedDict" in map(ast.unparse, node.bases)


def is_property(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list
    )


def split_parameters(text: str) -> list[str]:
    """Splits at the commas that stand in no bracket or quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [part for part in [*parts, text[start:].strip()] if part]


def documented_parameters(function: Any, name: str) -> list[tuple[str, str | None]]:
    """Names and defaults by the docstring of pybind11, a bare `*` as itself."""
    first = function.__doc__.splitlines()[0]
    assert first.startswith(f"{name}("), f"{name} has the docstring {first!r}"
    text = first[len(name) + 1 : first.rindex(") -> ")]
    found = []
    for part in split_parameters(text):
        if part in ("*", "/"):
            found.append((part, None))
            continue
        match = PARAMETER.fullmatch(part)
        assert match, part
        found.append((match["name"], match["default"]))
    return found


def stub_parameters(node: ast.FunctionDef) -> list[tuple[str | None, ast.expr | None]]:
    """As above; positional-only names, which no caller can use, are `None`."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    found: list[tuple[str | None, ast.expr | None]] = []
    for argument, default in zip(positional, defaults, strict=True):
        anonymous = argument in spec.posonlyargs and argument.arg != "self"
        found.append((None if anonymous else argument.arg, default))
    if spec.kwonlyargs:
        found.append(("*", None))
    for argument, keyword_default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        found.append((argument.arg, keyword_default))
    return found


def differences(node: ast.FunctionDef, function: Any) -> list[str]:
    documented, stubbed = documented_parameters(function, node.name), stub_parameters(node)
    if len(documented) != len(stubbed):
        return [f"{node.name}: {[n for n, _ in stubbed]} in the stub, {documented} in the module"]
    wrong = []
    for (name, default), (stub_name, stub_default) in zip(documented, stubbed, strict=True):
        if stub_name is not None and stub_name != name:
            wrong.append(f"{node.name}: {stub_name} should be {name}")
        if (default is None) != (stub_default is None):
            wrong.append(f"{node.name}: only one side has a default for {name}")
        elif default is not None and stub_default is not None:
            text = ast.unparse(stub_default)
            if text != "..." and ast.literal_eval(text) != ast.literal_eval(default):
                wrong.append(f"{node.name}: {name} is {text} in the stub, {default} in the module")
    return wrong


@pytest.mark.parametrize("name", ["_proxy", "_core", "_ucx", "_mpi"])
def test_names_of_module_and_stub_are_the_same(name: str) -> None:
    module, stub = module_of(name), definitions(stub_of(name).body)
    assert public(list(stub)) == public(dir(module))
    for class_name, node in stub.items():
        if isinstance(node, ast.ClassDef):
            built = getattr(module, class_name)
            # `object` has dunders that a stub need not repeat.
            assert public(list(definitions(node.body))) == public(vars(built)), class_name


@pytest.mark.parametrize("name", ["_core", "_ucx", "_mpi"])
def test_parameters_of_module_and_stub_are_the_same(name: str) -> None:
    module = module_of(name)
    wrong: list[str] = []
    compared = 0
    for node in definitions(stub_of(name).body).values():
        if isinstance(node, ast.FunctionDef):
            wrong += differences(node, getattr(module, node.name))
            compared += 1
        elif isinstance(node, ast.ClassDef):
            built = getattr(module, node.name)
            for method_name, method in definitions(node.body).items():
                assert isinstance(method, ast.FunctionDef)
                if is_property(method):
                    assert isinstance(vars(built)[method_name], property), method_name
                elif method_name not in ("__len__", "__buffer__"):
                    wrong += differences(method, getattr(built, method_name))
                    compared += 1
    assert not wrong, "\n".join(wrong)
    assert compared > 0


@pytest.mark.parametrize(
    ("stub", "complaint"),
    [
        ("def memory_limits() -> dict[str, int]: ...", None),
        ("def memory_limits(root: str) -> dict[str, int]: ...", "memory_limits"),
        ("def default_capacity(processes: int = 1) -> int: ...", "processes should be"),
        ("def default_capacity(processes_on_node: int = 2) -> int: ...", "is 2 in the stub"),
        ("def default_capacity(processes_on_node: int) -> int: ...", "only one side"),
    ],
)
def test_a_stale_stub_is_noticed(stub: str, complaint: str | None) -> None:
    node = ast.parse(stub).body[0]
    assert isinstance(node, ast.FunctionDef)
    found = differences(node, getattr(module_of("_core"), node.name))
    if complaint is None:
        assert not found
    else:
        assert complaint in found[0]
