"""A slice of SQLAlchemy's own tests with the barrier, and the comparison that the whole run is judged by."""

from pathlib import Path

import pytest

from tests.sqlalchemy_suite.modules import EXCLUDED, SLICE, chosen_modules, exclusion_of
from tests.sqlalchemy_suite.runner import Outcomes, compare, run_once
from tests.sqlalchemy_suite.source import SourceUnavailable, sqlalchemy_source


def test_sqlalchemys_own_tests_pass_with_the_barrier() -> None:
    outcomes = run_once(sqlalchemy_source(), SLICE, "sqlite://", barrier=True)
    broken = {
        test: message
        for test, (outcome, message) in outcomes.tests.items()
        if outcome == "failed" and exclusion_of(test) is None
    }
    assert broken == {}
    assert sum(outcome == "passed" for outcome, _ in outcomes.tests.values()) > 500
    assert outcomes.counts["compiled scoped"] > 1_000
    assert outcomes.counts["executed scoped"] > 3 * outcomes.counts["executed by allow_raw()"]


def excluded_test() -> str:
    return "test/orm/" + next(iter(next(iter(EXCLUDED.values())))).replace("*", "")


def test_a_test_that_fails_with_the_barrier_alone_is_reported() -> None:
    name = excluded_test()
    without = Outcomes({"a": ("passed", ""), "b": ("passed", ""), "c": ("failed", "x"), name: ("passed", "")})
    barrier = Outcomes(
        {"a": ("passed", ""), "b": ("failed", "no"), "c": ("failed", "x"), name: ("failed", "by design")}
    )
    result = compare(without, barrier)
    assert result.broken == {"b": "failed: no"}
    assert (result.passed, result.failed_before, list(result.excluded.values())) == (1, ["c"], [[name]])


def test_a_test_that_is_not_run_or_is_skipped_with_the_barrier_is_reported() -> None:
    without = Outcomes({"a": ("passed", ""), "b": ("passed", ""), "c": ("skipped", "")})
    result = compare(
        without, Outcomes({"a": ("skipped", ""), "c": ("skipped", ""), "d": ("failed", "a process ended")})
    )
    assert set(result.broken) == {"a", "b", "d"}
    assert result.skipped == 1


def test_a_name_in_the_list_of_exclusions_is_reported_if_all_its_tests_pass() -> None:
    name = excluded_test()
    pattern = next(iter(next(iter(EXCLUDED.values()))))
    passes, fails = Outcomes({name: ("passed", "")}), Outcomes({name: ("failed", "by design")})
    assert compare(passes, passes).needless == [pattern]
    assert compare(passes, fails).needless == []


def test_the_source_is_that_of_the_installed_version() -> None:
    source = sqlalchemy_source()
    assert set(SLICE) <= set(chosen_modules(source, "sqlite", []))


def test_a_directory_without_the_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"test/conftest\.py"):
        sqlalchemy_source(tmp_path)


def test_the_tests_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "conftest.py").touch()
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: SQLAlchemy\nVersion: 1.0\n")
    with pytest.raises(SourceUnavailable, match="one version"):
        sqlalchemy_source(tmp_path)


def test_a_registry_that_can_not_be_reached_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sqlalchemy_suite.source._KEPT", tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "none").as_uri())
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(SourceUnavailable, match="Have pip reach a package registry"):
        sqlalchemy_source()
