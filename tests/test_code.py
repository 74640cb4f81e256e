"""What makes an asset is part of its fingerprint, with nothing to remember when it changes."""

import os
import shutil
import subprocess
import sys

import pytest
from shop import ROOT

import assets.code as code
from assets.importance import sample_values
from assets.prepare import cleaned_interactions, items
from assets.publish import made_from
from assets.recommend import recommendations
from ecom_pipeline import __file__ as package


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the domain to change, and a function for the versions of four assets with it."""
    folder = tmp_path / "ecom_pipeline"
    shutil.copytree(package.removesuffix("__init__.py"), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "_PACKAGE", folder)
    assets = {"items": items, "events": cleaned_interactions, "values": sample_values, "lists": recommendations}

    def versions():
        for cached in (code.version, code._file, code._read):
            cached.cache_clear()
        return {name: code.version(code.function_of(asset)) for name, asset in assets.items()}

    yield folder, versions
    monkeypatch.undo()
    versions()


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("file", "was", "now", "expected"),
    [
        ("cleaning/catalogue.py", "nth > 1", "nth > 2", {"items", "events"}),
        ("recommend/lists.py", "> 0", "> 1", {"lists"}),
        ("cleaning/catalogue.py", '"""Make `items`', '"""Makes `items`', set()),
        (
            "cleaning/catalogue.py",
            '    forms.make_macros(db, "items")\n',
            '    # in words\n    forms.make_macros(db, "items")\n\n',
            set(),
        ),
        ("importance/margin.py", "", "VALUE = 1\n", set()),
    ],
)
def test_an_asset_changes_with_the_code_that_it_reaches(copied, file, was, now, expected):
    folder, versions = copied
    before = versions()
    path = folder / file
    text = path.read_text() if path.is_file() else ""
    assert was in text
    path.write_text(text.replace(was, now) if was else now)
    assert changed(before, versions()) == expected


def test_a_new_file_in_a_room_that_finds_its_files_counts(copied, monkeypatch):
    folder, _ = copied
    code._read.cache_clear()
    before = code._closure({"ecom_pipeline.sources"})
    (folder / "sources" / "new_format.py").write_text("ADAPTER = None\n")
    code._read.cache_clear()
    assert code._closure({"ecom_pipeline.sources"}) - before == {"ecom_pipeline.sources.new_format"}


def test_the_version_is_part_of_what_an_asset_is_made_from(copied):
    folder, versions = copied
    versions()
    before = made_from(items, "items", None, {})
    path = folder / "cleaning" / "catalogue.py"
    path.write_text(path.read_text().replace("nth > 1", "nth > 2"))
    versions()
    assert made_from(items, "items", None, {}) != before


def test_methods_of_a_configuration_count(monkeypatch):
    from assets import model

    function = code.function_of(model.fine_tuned_model)
    code.version.cache_clear()
    before = code.version(function)

    def settings(self):
        return None

    settings.__module__, settings.__qualname__ = "assets.model", "ModelConfig.settings"
    monkeypatch.setattr(model.ModelConfig, "settings", settings)
    code.version.cache_clear()
    assert code.version(function) != before
    code.version.cache_clear()


def test_versions_are_the_same_in_every_process():
    code = """from assets.code import function_of, version; from assets.refresh import FLOW
print([version(function_of(one)) for one in FLOW])"""
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in "23"  # under which sets have their elements in another order
    }
    assert len(told) == 1
