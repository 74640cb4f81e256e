import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"ecom_pipeline": set(), "resources": {"ecom_pipeline"}, "assets": {"ecom_pipeline", "resources"}}
KNOW_DAGSTER = {"definitions", "cli"}
FLOORS = [
    {
        "errors",
        "files",
        "arrays",
        "quoting",
        "days",
        "identity",
        "purchases",
        "feedback",
        "schema",
        "ledger",
        "page",
        "curves",
    },
    {"forms"},
    {"sources", "cleaning"},
    {"samples"},
    {"language"},
    {"importance"},
    {"ranking"},
    {"recommend"},
    {"benchmark", "experiments", "audiences", "demand", "watching"},
    {"report", "laws", "export"},
    {"service"},
    {"privacy"},
    {"cli", "definitions"},
]


def imports_of(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    nodes = ast.walk(ast.parse(file.read_text()))
    return found | {f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}


def files_of(layer: str) -> list[Path]:
    files = sorted((ROOT / layer).rglob("*.py"))
    rooms = {f: f.relative_to(ROOT / layer).parts[0].removesuffix(".py") for f in files}
    return [f for f in files if layer != "ecom_pipeline" or rooms[f] not in KNOW_DAGSTER]


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_the_layers_below_it(layer):
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[layer] - {layer}
    if layer == "ecom_pipeline":
        forbidden |= {"dagster"}
    roots = {f: {name.split(".")[0] for name in imports_of(f)} for f in files_of(layer)}
    assert {f"{f.relative_to(ROOT)} imports {m}" for f, names in roots.items() for m in names & forbidden} == set()


def test_resources_know_of_the_domain_only_its_errors_and_how_sql_is_quoted():
    names = {n for f in files_of("resources") for n in imports_of(f) if n.startswith("ecom_pipeline")}
    assert {".".join(name.split(".")[:2]) for name in names} == {"ecom_pipeline.errors", "ecom_pipeline.quoting"}


def test_inside_the_domain_imports_go_down_the_floors():
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    upward = []
    for file in files_of("ecom_pipeline"):
        own = file.relative_to(ROOT / "ecom_pipeline").parts[0].removesuffix(".py")
        for name in imports_of(file):
            parts = name.split(".")
            if parts[0] == "ecom_pipeline" and own != "__init__" and floor.get(parts[1], 0) > floor[own]:
                upward.append(f"{file.name} imports {name}")
    assert upward == []


def test_only_the_warehouse_opens_a_database():
    opening = [
        f.name for layer in MAY_IMPORT for f in (ROOT / layer).rglob("*.py") if "duckdb.connect(" in f.read_text()
    ]
    assert opening == ["warehouse.py"]


def test_no_query_asks_a_figure_of_all_rows_beside_each():
    """DuckDB 1.5 fails at it by chance, and its whole database with it (duckdb/duckdb#22846); a subquery says the same."""
    found = {
        str(file.relative_to(ROOT))
        for layer in MAY_IMPORT
        for file in (ROOT / layer).rglob("*.py")
        if "over ()" in file.read_text().replace("row_number() over ()", "")
    }
    assert not found


def test_our_top_level_names_are_ours():
    import assets
    import ecom_pipeline
    import resources

    for module in (assets, ecom_pipeline, resources):
        assert Path(module.__file__).parent == ROOT / module.__name__


def test_loading_the_definitions_loads_no_heavy_library():
    heavy = "{'torch', 'transformers', 'great_expectations', 'matplotlib'}"
    code = (
        f"import sys, ecom_pipeline.definitions; assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_workspace_and_pyproject_name_one_module():
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]["module_name"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert workspace == project["code_location_target_module"] == "ecom_pipeline.definitions"


def test_no_asset_module_postpones_annotations():
    assert [f for f in files_of("assets") + files_of("resources") if "import annotations" in f.read_text()] == []


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_no_file_is_longer_than_400_lines(layer):
    assert [f.name for f in (ROOT / layer).rglob("*.py") if len(f.read_text().splitlines()) > 400] == []
