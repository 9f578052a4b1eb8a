"""How operations are written into a migration script: Python that holds every word of the SQL, line by line."""

from typing import Any, Final

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext

from tenantguard.orm.rls.alembic.operations import OPERATIONS, LeaveTenantRlsOp, TenantRlsOp

__all__: list[str] = []

IMPORT: Final = "import tenantguard.orm.rls.alembic  # the operations of row-level security"


def _render(context: AutogenContext, operation: TenantRlsOp) -> str:
    context.imports.add(IMPORT)
    prefix = context.opts.get("alembic_module_prefix") or "op."
    (first, value), *rest = operation.arguments()
    lines = [_value(value, 1) if first in ("table_name", "views") else f"{first}={_value(value, 1)}"]
    lines += [f"{name}={_value(value, 1)}" for name, value in rest]
    return f"{prefix}{operation.name}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


def _value(value: Any, depth: int) -> str:
    """Return a value as Python, one line for each line of a text, since Alembic indents what it writes."""
    inner = "    " * (depth + 1)
    if isinstance(value, str) and "\n" in value.rstrip("\n"):
        return "(\n" + "".join(f"{inner}{line!r}\n" for line in value.splitlines(keepends=True)) + inner[4:] + ")"
    if isinstance(value, dict) and value:
        entries = (f"{inner}{key!r}: {_value(one, depth + 1)},\n" for key, one in value.items())
        return "{\n" + "".join(entries) + inner[4:] + "}"
    if isinstance(value, list | tuple) and any(not isinstance(one, str) or "\n" in one for one in value):
        entries = (f"{inner}{_value(one, depth + 1)},\n" for one in value)
        first, last = "[]" if isinstance(value, list) else "()"
        return f"{first}\n" + "".join(entries) + inner[4:] + last
    return repr(value)


@renderers.dispatch_for(LeaveTenantRlsOp)
def _render_left(context: AutogenContext, operation: LeaveTenantRlsOp) -> str:  # noqa: ARG001
    return "pass  # row-level security stays as it was mended"


for _one in OPERATIONS:
    renderers.dispatch_for(_one)(_render)
