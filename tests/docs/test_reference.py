"""The reference pages are what the docstrings say, and no public class or function is missing."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(made: Any) -> None:
    for file, text in made.pages().items():
        assert (ROOT / "docs" / "reference" / file).read_text() == text, f"{file} is stale: run make docs"


def test_every_public_class_and_function_stands_on_a_page(made: Any) -> None:
    assert set(made.public_names()) <= made.covered()


def test_everything_public_is_documented(made: Any) -> None:
    assert not [name for name, thing in made.public_names().items() if not inspect.getdoc(thing)]


def test_the_overview_leads_to_every_page(made: Any) -> None:
    overview = (ROOT / "docs" / "reference.md").read_text()
    assert not [file for file in made.PAGES if f"(reference/{file})" not in overview]
