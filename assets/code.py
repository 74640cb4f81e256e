"""The version of an asset's code, derived from the code that it reaches: nobody has to remember to change a number."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

import dagster as dg

import ecom_pipeline

_PACKAGE = Path(ecom_pipeline.__file__).parent
_PAGE = "ecom_pipeline.page"  # renders the templates, which are code too


@cache
def version(function: Callable) -> str:
    """A short hash of a function, of the functions beside it that it calls, and of all modules of the domain they reach.

    Comments, docstrings and blanks do not count.

    Args:
        function: that makes an asset.

    Cost: the reached modules are parsed once a process, some 0.4 s for all.
    """
    functions: dict[str, str] = {}
    reached: set[str] = set()
    wanted = [function]
    while wanted:
        one = wanted.pop()
        if one.__qualname__ in functions:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        functions[one.__qualname__] = _told(tree)
        reached.update(_imported(tree))
        for name in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
            found = inspect.unwrap(one.__globals__[name]) if name in one.__globals__ else None
            owner = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None) or ""
            if owner.startswith("ecom_pipeline"):
                reached.add(owner)
            elif owner.startswith("assets"):
                methods = vars(found).values() if isinstance(found, type) else [found]
                wanted += [one for one in methods if isinstance(one, FunctionType) and one.__module__ == owner]
    told = [*sorted(functions.items()), *((name, _module(name)) for name in sorted(_closure(reached)))]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def function_of(asset: dg.AssetsDefinition) -> Callable:
    """The function that makes an asset."""
    return asset.op.compute_fn.decorated_fn  # type: ignore[union-attr]


def _closure(names: set[str]) -> set[str]:
    """The modules of these names, and all of the domain that they import, wherever in them they do."""
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        parts = name.split(".")
        packages = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        new = {one for one in packages if _file(one)} - found
        found |= new
        for one in new:
            wanted += _imports(one)
    return found


@cache
def _imports(name: str) -> tuple[str, ...]:
    file = _file(name)
    assert file is not None
    text = file.read_text()
    every = file.parent.glob("*.py") if "iter_modules(__path__)" in text else ()  # a package that finds its modules
    return (*_imported(ast.parse(text)), *(f"{name}.{one.stem}" for one in every if one.stem != "__init__"))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ecom_pipeline"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ecom_pipeline"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _module(name: str) -> str:
    file = _file(name)
    assert file is not None
    beside = sorted((_PACKAGE / "templates").iterdir()) if name == _PAGE else []
    return _told(ast.parse(file.read_text())) + "".join(template.read_text() for template in beside)


def _file(name: str) -> Path | None:
    """Where a module of the domain lies; None for what is a name inside a module."""
    path = _PACKAGE.parent.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _told(tree: ast.Module) -> str:
    """The code itself: docstrings out, comments and blanks are not in a tree."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[:1] = []
    return ast.dump(tree)
