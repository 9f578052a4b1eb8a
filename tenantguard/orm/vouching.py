"""The part of the compiler that refuses what it can't vouch for.

Every place where SQLAlchemy renders a string of the statement's author as it is, or lets a construct render itself,
is overridden here and held to the grammar of `tenantguard.orm.fragments` and the list of
`tenantguard.orm.functions`. In a system context everything is passed through.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from sqlalchemy import BindParameter, Column, Table
from sqlalchemy.ext.compiler import _dispatcher
from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.elements import ClauseElement, TextClause, Tuple
from sqlalchemy.sql.selectable import CTE, SelectBase
from sqlalchemy.sql.visitors import Visitable

from tenantguard.errors import StatementRefused
from tenantguard.orm.fragments import (
    is_plain_field,
    is_plain_fragment,
    is_plain_literal,
    is_plain_operator,
    is_plain_prefix,
)
from tenantguard.orm.fragments import is_plain_type as _is_plain_type
from tenantguard.orm.functions import PURE_FUNCTIONS
from tenantguard.orm.identifiers import LateRefusal
from tenantguard.orm.strangers import ASKING

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler
else:
    SQLCompiler = object

__all__ = ["VouchingMixin", "install_construct_check", "names_column", "refuse"]

_SYSTEM = (
    'Write it with SQLAlchemy constructs, or run it in a block of allow_raw("why") and filter by tenant yourself, '
    'or of system("why").'
)


def refuse(what: str, mend: str = _SYSTEM, kind: type[StatementRefused] = StatementRefused) -> NoReturn:
    """Raise the refusal of a construct.

    Raises:
        StatementRefused: always.
    """
    raise kind(f"The statement has {what}, which the barrier can't vouch for.", mend=mend)


_KNOWN: Final[set[object]] = set(ASKING)
"""The functions by which constructs become SQL that are SQLAlchemy's own."""
_LEAVES: Final = frozenset({Column, BindParameter, Table})
"""Classes of elements that have no parts of their own."""


_dispatch: Final[Any] = _dispatcher.__call__


def _asking_dispatch(self: Any, element: Any, compiler: Any, **kwargs: Any) -> Any:
    if getattr(compiler, "unscoped", True) is False:
        rendering = self.specs.get(compiler.dialect.name) or self.specs.get("default")
        if getattr(rendering, "__module__", "") != "sqlalchemy.ext.compiler":  # else it is the class's former way
            compiler.question(f"the construct {type(element).__name__}, which renders SQL of its own")
    return _dispatch(self, element, compiler, **kwargs)


def install_construct_check() -> None:
    """Have what ``@compiles`` made ask which compiler it is for, wherever in a statement it stands, once."""
    _dispatcher.__call__ = _asking_dispatch  # type: ignore[method-assign]


class VouchingMixin(SQLCompiler):
    """Overrides for every textual part of a statement. Mixed in before a dialect's compiler."""

    mode: Any
    """See `tenantguard.binding.Binding`."""
    unscoped: bool
    raw: bool
    """Whether the author vouches for what the barrier can't (`tenantguard.permits.allow_raw`)."""
    used_raw: bool
    allowed_functions: frozenset[str] = frozenset()
    cte_names: set[str]

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
        element = _first_that_renders_itself(roots)
        if element is not None:
            self.question(f"the construct {type(element).__name__}, which renders SQL of its own")

    def vouch_for_values(self, state: Any, tables: Iterable[Any], default: str) -> None:
        """Do the same for what is written, in rows of several and from the declaration of a column.

        Args:
            state: the compile state of an INSERT or UPDATE.
            tables: those whose columns are written.
            default: ``"default"`` or ``"onupdate"``, which is what a column gets that is not named.

        Raises:
            StatementRefused: there is one.
        """
        rows = getattr(state, "_multi_parameters", None) or [state._dict_parameters or {}]
        self.vouch_for_parts(*(_clause_of(value) for row in rows for value in row.values()))
        keys = self.column_keys or ()
        for column in (column for table in tables for column in getattr(table, "columns", ())):
            given = getattr(column, default, None)
            if given is None or not given.is_clause_element or column.key in keys:
                continue
            if not all(any(names_column(key, column) for key in row) for row in rows):
                self.vouch_for_parts([given.arg])

    def vouch_for_root(self, statement: Any) -> None:
        """Refuse a statement that renders itself.

        Raises:
            StatementRefused: it does.
        """
        if isinstance(statement, ClauseElement) and _renders_itself(statement, _learn(type(statement)).real):
            self.question(f"the construct {type(statement).__name__}, which renders SQL of its own")

    def refuse_shadowed_tables(self, names: set[str]) -> None:
        """Refuse CTEs that go by the name of a table: the database would read the CTE in the table's place.

        Args:
            names: the tables that the statement reads, those of predicates included, in lower case.

        Raises:
            StatementRefused: there is one.
        """
        if any(name in names for name in self.cte_names):
            refuse("a CTE that goes by the name of a table", mend="Give the CTE another name.")

    def visit_cte(self, cte: Any, *args: Any, **kwargs: Any) -> Any:
        self.cte_names.add(str(cte.name).lower())
        if not self.unscoped:
            self.vouch_for_parts([cte.element])
        return super().visit_cte(cte, *args, **kwargs)

    def visit_compound_select(self, cs: Any, *args: Any, **kwargs: Any) -> str:
        if not self.unscoped:
            self.vouch_for_parts(cs.get_children())
        return super().visit_compound_select(cs, *args, **kwargs)

    def _render_values(self, element: Any, **kw: Any) -> str:
        if not self.unscoped:
            # SQLAlchemy does not count what stands in VALUES among the parts of a statement.
            rows = (row for chunk in element._data for row in chunk)
            self.vouch_for_parts(Tuple(*row, types=element._column_types) for row in rows)
        return super()._render_values(element, **kw)

    def _on_conflict_target(self, clause: Any, **kw: Any) -> str:
        if not self.unscoped:
            elements = [one for one in clause.inferred_target_elements or () if isinstance(one, Visitable)]
            self.vouch_for_parts(elements, clause.inferred_target_whereclause)
        return str(super()._on_conflict_target(clause, **kw))  # type: ignore[misc]

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

    def visit_tstring_text(self, element: Any, **kw: Any) -> str:
        if not self.unscoped:
            self.question("a part of a template string")
        return super().visit_tstring_text(element, **kw)

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        if column.is_literal and not self.unscoped and not is_plain_fragment(column.name):
            self.question("a literal_column()")
        return super().visit_column(column, *args, **kw)

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> str:
        if not self.unscoped:
            impl = bindparam.type.dialect_impl(self.dialect)
            if impl._has_bind_expression:
                self.vouch_for_parts([impl.bind_expression(bindparam)])
        return super().visit_bindparam(bindparam, *args, **kwargs)

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.unscoped:
            impl = column.type.dialect_impl(self.dialect)
            if impl._has_column_expression:
                self.vouch_for_parts([impl.column_expression(column)])
        return super()._label_select_column(select, column, *args, **kwargs)

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
        text: Any = super().visit_typeclause(typeclause, **kw)
        # MySQL's has no text for types that it has no cast to, and leaves the cast out.
        if not self.unscoped and text is not None and not _is_plain_type(text):
            self.question("a cast to a type whose name holds other than words and numbers")
        return text

    def _vouch_type(self, type_: Any) -> None:
        if not self.unscoped and not _is_plain_type(str(self.dialect.type_compiler_instance.process(type_))):
            refuse("a type whose name holds other than words and numbers", kind=LateRefusal)

    def render_bind_cast(self, type_: Any, dbapi_type: Any, sqltext: str) -> str:
        self._vouch_type(dbapi_type)
        return super().render_bind_cast(type_, dbapi_type, sqltext)

    def visit_empty_set_expr(self, element_types: Any, **kw: Any) -> str:
        for type_ in element_types or ():
            if not type_._isnull:
                self._vouch_type(type_)
        return super().visit_empty_set_expr(element_types, **kw)

    def visit_array(self, element: Any, **kw: Any) -> str:
        if not element.clauses and not element.type.item_type._isnull:
            self._vouch_type(element.type)
        render = getattr(super(), "visit_array", None)
        return str(render(element, **kw)) if render else refuse("an array, which the database does not have")

    def visit_table_valued_alias(self, element: Any, **kw: Any) -> str:
        if element._render_derived_w_types:
            for column in element.c:
                self._vouch_type(column.type)
        return super().visit_table_valued_alias(element, **kw)

    def render_literal_value(self, value: Any, type_: Any) -> str:
        text = super().render_literal_value(value, type_)
        if not self.unscoped and not is_plain_literal(text):
            refuse("a literal value that is rendered as other than a number, a string or NULL", kind=LateRefusal)
        return text

    def _generate_prefixes(self, stmt: Any, prefixes: Any, **kw: Any) -> str:
        if not self.unscoped:
            for clause, _dialect in prefixes:
                if not isinstance(clause, TextClause) or not is_plain_prefix(clause.text):
                    self.question("a prefix or suffix")
                self.vouch_for_parts([clause])
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


def names_column(key: Any, column: Column[Any]) -> bool:
    """True if a key of a VALUES or SET mapping means the column."""
    return key is column or getattr(key, "key", key) == column.key


def _clause_of(value: Any) -> Any:
    """Return the SQL element that a value stands for; ``None`` for a value that becomes a parameter."""
    while hasattr(value, "__clause_element__") and not isinstance(value, ClauseElement):
        value = value.__clause_element__()
    return value if isinstance(value, ClauseElement) else None


class _About(NamedTuple):
    """What is known of a class of elements.

    Args:
        real: the class by which its elements become SQL: of annotated copies, that of what was copied.
        is_part: whether it is an element at all; else it holds some.
        is_leaf: whether its elements have no parts, or parts that come by when they are compiled.
    """

    real: Any
    is_part: bool
    is_leaf: bool


_classes: Final[dict[type[Any], _About]] = {}


def _learn(cls: type[Any]) -> _About:
    real: Any = cls
    if issubclass(cls, Annotated):
        real = next(one for one in cls.__mro__ if issubclass(one, Visitable) and not issubclass(one, Annotated))
    leaf = real in _LEAVES or issubclass(real, SelectBase | CTE)
    if not issubclass(cls, Visitable):
        return _About(cls, False, False)
    return _classes.setdefault(cls, _About(real, issubclass(cls, ClauseElement), leaf))


def _first_that_renders_itself(roots: Iterable[Any]) -> Any:
    """Return the first element that becomes SQL by a way of its own, or ``None``."""
    stack: list[Any] = [*roots]
    while stack:
        element = stack.pop()
        if element is None:
            continue
        about = _classes.get(type(element)) or _learn(type(element))
        if not about.is_part:
            if not isinstance(element, Visitable):
                stack.extend(element)
            continue
        if _renders_itself(element, about.real):
            return element
        if not about.is_leaf:
            stack.extend(element.get_children())
    return None


def _renders_itself(element: Any, real: Any) -> bool:
    """True if the way in which an element becomes SQL was replaced, as ``@compiles`` does."""
    dispatch = real._compiler_dispatch
    if dispatch not in _KNOWN:
        module = getattr(dispatch, "__module__", "")
        if module != "sqlalchemy.sql.visitors" and not module.startswith("sqlalchemy.orm."):
            return True
        _KNOWN.add(dispatch)
    return "_compiler_dispatch" in getattr(element, "__dict__", ())
