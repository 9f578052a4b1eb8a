"""The part of the compiler that refuses what it can't vouch for.

Every place where SQLAlchemy renders a string of the statement's author as it is, or lets a construct render itself,
is overridden here and held to the grammar of `tenantguard.orm.fragments` and the list of
`tenantguard.orm.functions`. In a system context everything is passed through.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import BindParameter, Column, Table
from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.elements import ClauseElement, TextClause
from sqlalchemy.sql.selectable import CTE, SelectBase
from sqlalchemy.sql.visitors import Visitable

from tenantguard.errors import StatementRefused
from tenantguard.orm.classify import real_table
from tenantguard.orm.fragments import is_plain_field, is_plain_fragment, is_plain_operator, is_plain_prefix
from tenantguard.orm.fragments import is_plain_type as _is_plain_type
from tenantguard.orm.functions import PURE_FUNCTIONS
from tenantguard.orm.strangers import ASKING

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler
else:
    SQLCompiler = object

__all__ = ["VouchingMixin", "refuse"]

_SYSTEM = (
    'Write it with SQLAlchemy constructs, or run it in a block of allow_raw("why") and filter by tenant yourself, '
    'or of system("why").'
)


def refuse(what: str, mend: str = _SYSTEM) -> NoReturn:
    """Raise the refusal of a construct.

    Raises:
        StatementRefused: always.
    """
    raise StatementRefused(f"The statement has {what}, which the barrier can't vouch for.", mend=mend)


_KNOWN: Final[set[object]] = set(ASKING)
"""The functions by which constructs become SQL that are SQLAlchemy's own."""
_LEAVES: Final = frozenset({Column, BindParameter, Table})
"""Classes of elements that have no parts of their own."""


def _renders_itself(element: object) -> bool:
    """True if the way in which a construct becomes SQL was replaced, as ``@compiles`` does."""
    while isinstance(element, Annotated):  # an annotated copy renders by the class of what it was copied from
        element = element._Annotated__element  # type: ignore[attr-defined]
    dispatch = getattr(type(element), "_compiler_dispatch", None)
    if dispatch not in _KNOWN:
        module = getattr(dispatch, "__module__", "")
        if module != "sqlalchemy.sql.visitors" and not module.startswith("sqlalchemy.orm."):
            return True
        _KNOWN.add(dispatch)
    return "_compiler_dispatch" in getattr(element, "__dict__", ())


class VouchingMixin(SQLCompiler):
    """Overrides for every textual part of a statement. Mixed in before a dialect's compiler."""

    mode: Any
    """See `tenantguard.binding.Binding`."""
    unscoped: bool
    raw: bool
    """Whether the author vouches for what the barrier can't (`tenantguard.permits.allow_raw`)."""
    used_raw: bool
    allowed_functions: frozenset[str] = frozenset()

    def question(self, what: str, mend: str = _SYSTEM) -> None:
        """Refuse a part that the barrier can't vouch for, unless its author does.

        Raises:
            StatementRefused: its author does not.
        """
        if not self.raw:
            refuse(what, mend)
        self.used_raw = True

    def vouch_for_parts(self, *roots: Iterable[Visitable] | Visitable | None) -> None:
        """Refuse constructs that render themselves, anywhere in one statement.

        Nested statements are not entered: they come by when they are compiled.

        Raises:
            StatementRefused: there is one.
        """
        for element in _own_parts(roots):
            if _renders_itself(element):
                self.question(f"the construct {type(element).__name__}, which renders SQL of its own")

    def visit_textclause(self, textclause: Any, add_to_result_map: Any = None, **kw: Any) -> str:
        if not self.unscoped and (
            not self.stack or not (is_plain_fragment(textclause.text) or is_plain_prefix(textclause.text))
        ):
            self.question("a text() part")
        return super().visit_textclause(textclause, add_to_result_map=add_to_result_map, **kw)

    def visit_textual_select(self, taf: Any, compound_index: Any = None, asfrom: bool = False, **kw: Any) -> str:
        if not self.unscoped:
            self.question("a SELECT made of text()")
        return super().visit_textual_select(taf, compound_index=compound_index, asfrom=asfrom, **kw)

    def visit_tstring(self, tstring: Any, add_to_result_map: Any = None, **kw: Any) -> str:
        if not self.unscoped:
            self.question("a template string")
        return super().visit_tstring(tstring, add_to_result_map=add_to_result_map, **kw)

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        if column.is_literal and not self.unscoped and not is_plain_fragment(column.name):
            self.question("a literal_column()")
        return super().visit_column(column, *args, **kw)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kw: Any) -> str:
        self._vouch_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kw)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kw: Any) -> str:
        self._vouch_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kw)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kw: Any) -> str:
        self._vouch_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kw)

    def _vouch_operator(self, operator: Any) -> None:
        if not self.unscoped and not is_plain_operator(operator.opstring):
            self.question("a custom operator made of other than symbols")

    def visit_function(self, func: Any, add_to_result_map: Any = None, **kwargs: Any) -> str:
        if not self.unscoped:
            name = str(func.name).lower()
            packages = [str(package) for package in getattr(func, "packagenames", ())]
            full = ".".join([*packages, name])
            # A package such as pg_catalog could name a function that only shares its name with a pure one.
            if full not in self.allowed_functions and (packages or name not in PURE_FUNCTIONS):
                self.question(
                    f"a call of the function {full[:80]!r}, which could run SQL of its own",
                    mend='If it only computes from its arguments, name it: protect(engine, functions=["…"]).',
                )
        return super().visit_function(func, add_to_result_map=add_to_result_map, **kwargs)

    def visit_extract(self, extract: Any, **kwargs: Any) -> str:
        if not self.unscoped and not is_plain_field(str(extract.field)):
            self.question("an EXTRACT of an unknown field")
        return super().visit_extract(extract, **kwargs)

    def visit_typeclause(self, typeclause: Any, **kw: Any) -> str:
        text = super().visit_typeclause(typeclause, **kw)
        if not self.unscoped and not _is_plain_type(text):
            self.question("a cast to a type whose name holds other than words and numbers")
        return text

    def _generate_prefixes(self, stmt: Any, prefixes: Any, **kw: Any) -> str:
        if not self.unscoped:
            for clause, _dialect in prefixes:
                if not isinstance(clause, TextClause) or not is_plain_prefix(clause.text):
                    self.question("a prefix or suffix")
        return super()._generate_prefixes(stmt, prefixes, **kw)

    def format_from_hint_text(self, sqltext: Any, table: Any, hint: Any, iscrud: Any) -> str:
        self._vouch_hint(hint)
        return super().format_from_hint_text(sqltext, table, hint, iscrud)

    def get_select_hint_text(self, byfroms: Any) -> Any:
        for hint in byfroms.values():
            self._vouch_hint(hint)
        return super().get_select_hint_text(byfroms)

    def get_statement_hint_text(self, hint_texts: Any) -> str:
        for hint in hint_texts:
            self._vouch_hint(hint)
        return super().get_statement_hint_text(hint_texts)

    def _vouch_hint(self, hint: object) -> None:
        # ONLY is what PostgreSQL's compiler itself accepts: the table without those that inherit from it.
        if not self.unscoped and not (isinstance(hint, str) and hint.upper() == "ONLY"):
            self.question("a hint")


def _own_parts(roots: Iterable[Any]) -> Iterator[ClauseElement]:
    stack: list[Any] = [*roots]
    while stack:
        element = stack.pop()
        if element is None:
            continue
        if not isinstance(element, Visitable):
            stack.extend(element)
        elif isinstance(element, ClauseElement):
            yield element
            if not isinstance(element, SelectBase | CTE) and type(real_table(element)) not in _LEAVES:
                stack.extend(element.get_children())
