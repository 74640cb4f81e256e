"""The version of an asset's code, derived from the code that it reaches: nobody has to remember to change a number."""

import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import dagster as dg

import ecom_pipeline

_PACKAGE = Path(ecom_pipeline.__file__).parent
_PAGE = "ecom_pipeline.page"  # renders the templates, which are code too
_IMPORT = re.compile(
    r"^\s*(?:from\s+(ecom_pipeline[\w.]*)\s+import\s+(\([^)]*\)|[^\n]+)|import\s+(ecom_pipeline[\w.]*))", re.MULTILINE
)


@cache
def version(function: Callable) -> str:
    """A short hash of a function, of the functions beside it that it calls, and of all modules of the domain they reach.

    Comments, docstrings, assertions and blanks do not count. What is compared is the compiled code: another version of Python
    makes all assets anew.

    Args:
        function: that makes an asset.

    Cost: the reached modules are compiled once a process, some 0.3 s for all.
    """
    functions: dict[str, str] = {}
    reached: set[str] = set()
    wanted = [function]
    while wanted:
        one = wanted.pop()
        place = f"{one.__module__}.{one.__qualname__}"  # two modules may each have a `_read`
        if place in functions:
            continue
        text = textwrap.dedent(inspect.getsource(one))
        compiled = _compiled(text)
        functions[place] = _told(compiled)
        reached.update(_imported(text))
        for name in _names(compiled):
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


def _imports(name: str) -> tuple[str, ...]:
    return _read(name)[0]


def _imported(text: str) -> Iterator[str]:
    for module, names, alone in _IMPORT.findall(text):
        if alone:
            yield alone
        for name in re.sub(r"#.*|[()]", "", names).split(","):
            if name.strip():
                yield f"{module}.{name.split()[0]}"


def _module(name: str) -> str:
    return _read(name)[1]


@cache
def _read(name: str) -> tuple[tuple[str, ...], str]:
    """What a module imports of the domain, and its code."""
    file = _file(name)
    assert file is not None
    text = file.read_text()
    every = file.parent.glob("*.py") if "iter_modules(__path__)" in text else ()  # a package that finds its modules
    imports = (*_imported(text), *(f"{name}.{one.stem}" for one in every if one.stem != "__init__"))
    beside = sorted((_PACKAGE / "templates").iterdir()) if name == _PAGE else []
    told = _told(_compiled(text)) + "".join(template.read_text() for template in beside)
    return imports, hashlib.sha256(told.encode()).hexdigest()


@cache
def _file(name: str) -> Path | None:
    """Where a module of the domain lies; None for what is a name inside a module."""
    path = _PACKAGE.parent.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _compiled(text: str) -> CodeType:
    """Code without docstrings; comments and blanks are not in it."""
    return compile(text, "", "exec", dont_inherit=True, optimize=2)


def _names(compiled: CodeType) -> set[str]:
    """All that a piece of code looks up by name, in functions inside it too."""
    inside = [_names(one) for one in compiled.co_consts if isinstance(one, CodeType)]
    return {*compiled.co_names}.union(*inside)


def _told(compiled: object) -> str:
    """What a piece of code does, whatever lines it stands on."""
    if isinstance(compiled, frozenset):
        return repr(sorted(map(repr, compiled)))  # in an order of its own in each process
    if not isinstance(compiled, CodeType):
        return repr(compiled)
    own = (compiled.co_name, compiled.co_code, compiled.co_names, compiled.co_varnames, compiled.co_freevars)
    return repr((*own, compiled.co_exceptiontable, compiled.co_flags, [_told(one) for one in compiled.co_consts]))
