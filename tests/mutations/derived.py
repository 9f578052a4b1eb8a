"""Mutants that are derived from the code: each takes one check away.

A check has one of three shapes: an ``if`` that refuses, a call that may refuse, and a function that answers whether
something may pass. Of a condition with several parts, each part is taken away by itself.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Mutant", "derived", "package_of", "path_of"]

_ROOT = Path(__file__).parents[2]
_CORE, _DJANGO = _ROOT / "tenantguard", _ROOT / "integrations/django/tenantguard_django"

_OF_DJANGO = "django/"

REFUSES = re.compile(r"(^|\.)_?(refuse|question|close)$")
CHECKS = re.compile(r"(^|\.)_?(refuse|check|vouch|note|guard|install|question|forget|name_prefetched)\w*$")
ANSWERS = {
    # True lets something pass.
    "is_plain_fragment": True,
    "is_plain_operator": True,
    "is_plain_prefix": True,
    "is_plain_type": True,
    "is_plain_literal": True,
    "is_plain_field": True,
    "may_run_anything": True,
    "_called_by_libraries": True,
    "_trusts_what_is_read": True,
    "computes_own_link": True,
    "selects_own_link": True,
    "_points_alike": True,
    "_alike": True,
    "_is_excluded": True,
    "_is_shared": True,
    "_is_one_column": True,
    "holds": True,
    "knows": True,
    # False lets something pass.
    "_gives_entities": False,
    "_is_entity": False,
    "_is_ddl": False,
    "_is_foreign": False,
    "_changed": False,
    "_renders_itself": False,
    "_meet": False,
    "belongs_to_tenants": False,
    "invents_value": False,
    "missing_rows": False,
    "reads_more": False,
    "reads_others": False,
    "_reads_more_than_it_writes": False,
    "loses_criteria_of_unions": False,
    # Those of Django's barrier.
    "_may_render": True,
    "_is_name": True,
    "_same_hooks": True,
    "_is_pure": True,
    "_is_type": True,
    "_is_djangos": True,
    "_is_plain_value": True,
    "_reads_own_link": True,
    "_is_all_own": True,
    "_gives_one_row": True,
    "are_plain": True,
    "follows": True,
    "is_plain": True,
    "same": True,
    "can_fail": False,
    "joins_can_fail": False,
    "_query_can_fail": False,
    "nothing_to_guard": True,
    "renders_by_itself": False,
    "_touches": False,
}


def package_of(module: str) -> Path:
    """Return the folder of the package that a module is in."""
    return _DJANGO if module.startswith(_OF_DJANGO) else _CORE


def path_of(module: str) -> Path:
    """Return the file of a module."""
    return package_of(module) / f"{module.removeprefix(_OF_DJANGO)}.py"


class Mutant(NamedTuple):
    """One change of one file.

    Args:
        module: the file without its ending, relative to the core's package, or to that for Django after ``django/``:
            ``"orm/writes"``, ``"django/orm/writes"``.
        name: what was done, unique within the module and independent of line numbers.
        code: the text of the whole file.
        lines: those of which a test must reach one to notice it: what the check does where it refuses.
    """

    module: str
    name: str
    code: str
    lines: range

    def __str__(self) -> str:
        return f"{self.module}: {self.name}"


class _Source:
    def __init__(self, module: str) -> None:
        self.module = module
        self.text = path_of(module).read_text().encode()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node: Any) -> tuple[int, int]:
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end].decode()

    def changed(self, node: ast.AST, new: str, *, insert: bool = False) -> str:
        start, end = self.span(node)
        return (self.text[:start] + new.encode() + self.text[start if insert else end :]).decode()


def derived(module: str) -> Iterator[Mutant]:
    """Return the mutants of one module, in the order of its lines."""
    source = _Source(module)
    seen: dict[str, int] = {}
    for function, what, code, lines in _functions(source):
        words = f"{function}(): {' '.join(what.split())}"
        seen[words] = seen.get(words, 0) + 1
        yield Mutant(module, words if seen[words] == 1 else f"{words} #{seen[words]}", code, lines)


def _functions(source: _Source) -> Iterator[tuple[str, str, str, range]]:
    tree = ast.parse(source.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for what, code, lines in _of_function(source, node):
                yield node.name, what, code, lines


def _lines(*nodes: Any) -> range:
    return range(nodes[0].lineno, nodes[-1].end_lineno + 1)


def _of_function(source: _Source, function: Any) -> Iterator[tuple[str, str, range]]:
    answer = ANSWERS.get(function.name)
    if answer is not None:
        first = function.body[1] if isinstance(function.body[0], ast.Expr) else function.body[0]
        indent = " " * first.col_offset
        yield f"always {answer}", source.changed(first, f"return {answer}\n{indent}", insert=True), _lines(first)
    alone: set[int] = set()
    for node in _within(function):
        if isinstance(node, ast.If) and (_refuses(source, node) or (answer is not None and _returns(node, not answer))):
            alone |= {id(part) for part in node.body if len(node.body) == 1}
            yield f"never if {source.of(node.test)}", source.changed(node.test, "False"), _lines(*node.body)
            for what, code in _parts(source, node.test, rarer=True):
                yield what, code, _lines(*node.body)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and id(node) not in alone:
            if CHECKS.search(ast.unparse(node.value.func)):
                yield f"without {source.of(node)}", source.changed(node, "None"), _lines(node)
        elif isinstance(node, ast.Return) and answer is not None and node.value is not None:
            for what, code in _parts(source, node.value, rarer=not answer):
                yield what, code, _lines(node)


def _within(function: Any) -> Iterator[ast.AST]:
    """Return the nodes of a function, outer ones first, without those of functions in it."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop(0)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            pending[:0] = ast.iter_child_nodes(node)


def _refuses(source: _Source, node: ast.If) -> bool:
    last = node.body[-1]
    if isinstance(last, ast.Raise):
        return True
    if isinstance(last, ast.Return) and source.module == "django/orm/vouching":
        # What is wrong with a part of a statement is told in words there, and ``None`` where nothing is.
        return isinstance(last.value, ast.JoinedStr) or (
            isinstance(last.value, ast.Constant) and isinstance(last.value.value, str)
        )
    return (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and bool(REFUSES.search(ast.unparse(last.value.func)))
    )


def _returns(node: ast.If, value: bool) -> bool:
    last = node.body[-1]
    return isinstance(last, ast.Return) and isinstance(last.value, ast.Constant) and last.value.value is value


def _parts(source: _Source, node: ast.expr, *, rarer: bool) -> Iterator[tuple[str, str]]:
    """Take each part of a condition away by which it holds more often (or, for `rarer` false, less often)."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield from _parts(source, node.operand, rarer=not rarer)
    elif isinstance(node, ast.BoolOp):
        if isinstance(node.op, ast.Or if rarer else ast.And):
            joined = " or " if rarer else " and "
            for part in node.values:
                rest = joined.join(f"({source.of(one)})" for one in node.values if one is not part)
                yield f"without the part {source.of(part)}", source.changed(node, f"({rest})")
        for part in node.values:
            yield from _parts(source, part, rarer=rarer)
