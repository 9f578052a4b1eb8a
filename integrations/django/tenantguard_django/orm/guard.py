"""Wall two: nothing reaches the cursor that the scoped compilers have not vouched for, and nothing without a tenant.

`Guard` is one connection's. It stands among Django's execute wrappers, and decides on each statement; the driver's
cursors (`tenantguard_django.orm.drivers`) ask it once more, so that what runs is what was decided on, also where
another wrapper rewrites the statement or a cursor is taken from below Django. A transaction belongs to the first tenant
that uses it: the pin is held by the outermost ``atomic`` block, or by the connection where autocommit is off. The
blocks that Django's `TestCase` puts around each test hold no pin, since a test may act as several tenants.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, final

from tenantguard.binding import Binding, bound_id, current_binding, raw_binding
from tenantguard.errors import NotBound, StatementRefused, TenantMismatch
from tenantguard.orm.pins import pin_of
from tenantguard_django.orm.classify import nothing_to_guard
from tenantguard_django.orm.lifts import Lift

__all__ = ["Guard"]

_RAW: Final = (
    'Write it with the ORM, or run it in a block of allow_raw("why") and filter by tenant yourself, or of '
    'system("why").'
)
_NAME: Final = r'(?:"[\w-]+"|`[\w-]+`|[\w-]+)'
_TRANSACTION: Final = re.compile(
    rf"(?:BEGIN(?: (?:TRANSACTION|WORK|DEFERRED|IMMEDIATE|EXCLUSIVE))?|COMMIT|ROLLBACK|SAVEPOINT {_NAME}|"
    rf"RELEASE SAVEPOINT {_NAME}|ROLLBACK TO SAVEPOINT {_NAME}|SET CONSTRAINTS ALL (?:IMMEDIATE|DEFERRED))",
    re.IGNORECASE,
)
_DDL: Final = frozenset(
    """
    alter attach cluster comment create detach drop grant import reassign reindex rename revoke security truncate vacuum
    """.split()
)
_WORD: Final = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_COMMENTS: Final = re.compile(r"\s*(?:/\*(?:(?!\*/|/\*).)*\*/\s*)*", re.DOTALL)
_NO_OWNER: Final = object()
_NOTHING: Final = ()


@final
class Guard:
    """What the barrier knows of one of Django's connections.

    Args:
        connection: Django's.
    """

    __slots__ = (
        "_owner",
        "_pin",
        "connection",
        "door",
        "entered",
        "given",
        "inserts",
        "known",
        "lifted",
        "passing",
        "setting",
        "statements",
        "told",
        "touched",
        "vouched",
        "writing",
    )

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.door = 0
        """Above zero while Django's own machinery talks to the database."""
        self.passing: str | None = None
        """The statement that was decided on, while it runs."""
        self.given: Any = None
        """Its parameters."""
        self.vouched: tuple[tuple[Any, Any, bool], ...] = _NOTHING
        """Text, parameters and whether a tenant's table is in it, of what the scoped compilers are about to run."""
        self.touched = False
        """Whether a compiler has met a tenant's table."""
        self.statements = 0
        """How many statements on tenants' tables the compilers have made."""
        self.lifted: list[Lift] = []
        """The rights beyond the tenant that compilers have made use of."""
        self.writing: Any = None
        """The query by which Django finds the rows of the UPDATE or DELETE that is compiled."""
        self._pin: object = None
        self._owner: object = _NO_OWNER
        self.known: dict[tuple[str, str, bool], set[Any]] = {}
        """The rows that foreign keys were found to point to, in this transaction."""
        self.inserts: dict[object, Any] = {}
        """Texts of INSERT (`tenantguard_django.orm.inserts`)."""
        self.setting: Any = None
        """Tells PostgreSQL whose transaction it is (`tenantguard_django.orm.rls`)."""
        self.told: object = _NO_OWNER
        """What PostgreSQL was told in this transaction."""
        self.entered = False
        """Whether it was told anything in this transaction, also if a savepoint took that back."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let Django's own machinery through: connecting, savepoints, looking at what the database can do."""
        self.door += 1
        try:
            yield
        finally:
            self.door -= 1

    # --- transactions --------------------------------------------------------------------------------------

    def owner(self) -> object:
        """Return what holds the pin of the running transaction: a block, the connection, or ``None`` for autocommit."""
        connection = self.connection
        blocks = connection.atomic_blocks
        if blocks and not connection.commit_on_exit and not getattr(blocks[0], "_from_testcase", False):
            return connection  # autocommit was off before, so the transaction outlives the blocks
        for block in blocks:
            if not getattr(block, "_from_testcase", False):
                return block
        if connection.atomic_blocks or connection.autocommit:
            return None
        return connection

    def forget(self) -> None:
        """End the pin: the transaction is over."""
        self._owner = _NO_OWNER
        self.known.clear()
        self.told = _NO_OWNER
        self.entered = False

    def left(self, block: object) -> None:
        """End the pin if a block that was left holds it."""
        if block is self._owner:
            self.forget()

    def rolled_back(self) -> None:
        """Look again at what a savepoint may have taken back."""
        self.known.clear()
        self.told = _NO_OWNER

    def pin(self, binding: Binding) -> bool:
        """Stamp the transaction with the first tenant that uses it, and refuse the second.

        Returns:
            Whether there is a transaction that can be relied on.

        Raises:
            TenantMismatch: it belongs to another tenant.
        """
        connection = self.connection
        owner = None if connection.autocommit and not connection.atomic_blocks else self.owner()
        if owner is None:
            if self.known:
                self.known.clear()
            return False
        now = pin_of(binding)
        if owner is not self._owner:
            self.forget()
            self._owner, self._pin = owner, now
        elif now != self._pin:
            raise TenantMismatch(
                "The transaction was begun for another tenant than the bound one.",
                mend="Leave the atomic block first: each tenant has transactions of its own.",
            )
        return True

    def lift(self, lift: Lift) -> None:
        """Note that a compiler makes use of a right beyond the tenant.

        Raises:
            StatementRefused: the database would not let it.
        """
        if self.setting is not None:
            raise StatementRefused(
                f"Row-level security shows the rows of one tenant, and {lift.right}() goes beyond them.",
                mend="Use a database alias whose role may bypass row-level security.",
            )
        self.lifted.append(lift)

    # --- statements ----------------------------------------------------------------------------------------

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Decide on a statement, and run it: Django's execute wrapper.

        Raises:
            TenantGuardError: it may not run.
        """
        if self.door:
            door, self.door = self.door, 0  # the door is for this statement, and not for what other wrappers send
            try:
                return self._run(execute, sql, params, many, context)
            finally:
                self.door = door
        binding = raw_binding()
        if binding is not None and binding.permits:
            binding = current_binding()
        vouched, self.vouched = self.vouched, _NOTHING
        for index, (text, given, touched) in enumerate(vouched):
            if text is sql and given is params and not many:
                self.vouched = vouched[index + 1 :]
                if not touched:
                    return self._run(execute, sql, params, many, context)
                if binding is None:
                    raise NotBound("A statement was about to run with no tenant bound.", mend="Enter `with bind(…):`.")
                break
        else:
            transactional = self._check_raw(binding, sql)
            self.known.clear()  # SQL of the app's may move or remove what was found
            if transactional:
                self.rolled_back()
                return self._run(execute, sql, params, many, context)
        assert binding is not None
        if binding.system is None:
            self.pin(binding)
        elif self.known:
            self.known.clear()  # and so may work across tenants
        if self.setting is not None:
            return self.setting.run(self, binding, lambda: self._run(execute, sql, params, many, context))
        before = self.passing, self.given
        self.passing, self.given = sql, params
        try:
            return execute(sql, params, many, context)
        finally:
            self.passing, self.given = before

    def _run(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        before = self.passing, self.given
        self.passing, self.given = sql, params
        try:
            return execute(sql, params, many, context)
        finally:
            self.passing, self.given = before

    def _check_raw(self, binding: Binding | None, sql: Any) -> bool:
        """Refuse SQL that no compiler has vouched for, or return whether it reaches no row of tenants.

        It reaches none if it only begins or ends a transaction, or if nobody is bound and all models are shared.
        """
        if binding is not None and binding.system is not None:
            return False
        text = sql if isinstance(sql, str) else ""
        if _TRANSACTION.fullmatch(text.strip().rstrip(";").strip()):
            return True
        if nothing_to_guard(binding):
            return True
        if binding is None:
            raise NotBound(
                "Raw SQL was about to run with no tenant bound.",
                mend='Enter `with bind(identity):` first, or `with system("why"):` for work across tenants.',
            )
        if bound_id(binding, "tenant") is None:
            raise NotBound("The bound identity belongs to no tenant.", mend="Use a token that names a tenant.")
        self._check_word(sql, binding)
        return False

    def _check_word(self, sql: Any, binding: Binding) -> None:
        found = _WORD.match(self._text(sql))
        if found is not None and found.group(1).lower() in _DDL:
            raise StatementRefused("DDL changes the tables of all tenants.", mend='Run it in a block of system("why").')
        if binding.raw is None:
            raise StatementRefused("Raw SQL is sent past the barrier.", mend=_RAW)

    def check_cursor(self, sql: Any = None, params: Any = None) -> None:
        """Refuse what a driver's cursor is about to run, unless it was decided on.

        Args:
            sql: the statement; ``None`` for what is none.
            params: its parameters.

        Raises:
            TenantGuardError: it may not run.
        """
        if self.door or (
            self.passing is not None
            and sql is not None
            and params is self.given
            and (sql is self.passing or self._commented(sql))
        ):
            return
        binding = current_binding()
        self.known.clear()
        if nothing_to_guard(binding):
            return
        if binding is None or (binding.system is None and bound_id(binding, "tenant") is None):
            raise NotBound("The driver's cursor is used with no tenant bound.", mend="Enter `with bind(identity):`.")
        if binding.system is None:
            self._check_word(sql, binding)
        if self.setting is not None:
            self.setting.before_raw(self.connection, binding)

    def _text(self, sql: Any) -> str:
        """Return a statement as text, which the drivers of PostgreSQL take as bytes and as composed objects as well."""
        if isinstance(sql, bytes | bytearray):
            return sql.decode("latin-1")
        if sql is not None and hasattr(sql, "as_string"):
            sql = sql.as_string(self.connection.connection)
        return sql if isinstance(sql, str) else ""

    def _commented(self, sql: Any) -> bool:
        """True for the statement that was decided on with comments around it, as tracing tools put them there."""
        passing = self.passing
        if not isinstance(sql, str) or not isinstance(passing, str):
            return False
        before, found, after = sql.partition(passing)
        return bool(found) and all(_COMMENTS.fullmatch(part) for part in (before, after))
