"""What a view demands, read from the view: by method, for function and class views, REST framework and Ninja.

It is what the doctor shows. The scopes come from `requires`, REST framework's permissions and Ninja's ``auth``,
wherever these libraries keep them: REST framework holds the function of ``@api_view`` in a class that it makes of it,
Ninja answers several operations by one view. Neither is imported, and neither need be there.
"""

import inspect
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tenantguard.scopes import required_scopes

__all__ = ["Demand", "demands_of"]

_ANY: Final = "any method"
_METHODS: Final = ("get", "post", "put", "patch", "delete", "trace")


class Demand(NamedTuple):
    """What must be held to be let in.

    Args:
        scopes: all of these.
        others: and each of these, in words, such as ``"documents:read or IsAdminUser"``.
    """

    scopes: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.scopes or self.others)

    def __str__(self) -> str:
        if not self:
            return "a token"
        scopes = [" ".join(sorted(self.scopes))] if self.scopes else []
        return f"a token with {' and '.join([*scopes, *(f'({other})' for other in self.others)])}"

    def also(self, other: "Demand") -> "Demand":
        """Return what demands both."""
        return Demand(self.scopes | other.scopes, tuple(dict.fromkeys((*self.others, *other.others))))


def demands_of(view: Any) -> str:
    """Return what a view demands, in words; by method where that makes a difference.

    Args:
        view: what a URL pattern calls.
    """
    by_method = dict(_by_method(view))
    if len(set(by_method.values())) == 1:
        return str(next(iter(by_method.values())))
    return "; ".join(f"{method}: {demand}" for method, demand in sorted(by_method.items()))


def _by_method(view: Any) -> Iterator[tuple[str, Demand]]:
    outer = Demand()
    for function in _layers(view):
        outer = outer.also(Demand(required_scopes(function)))
        cls = getattr(function, "cls", None) or getattr(function, "view_class", None)
        if inspect.isclass(cls):
            found = list(_of_class(cls, function))
            yield from ((method, outer.also(demand)) for method, demand in found)
            if found:
                return
        path_view = _held(function, "self")
        if hasattr(path_view, "operations"):
            for operation in path_view.operations:
                demand = outer.also(_of_operation(operation))
                yield from ((method.upper(), demand) for method in operation.methods)
            return
    yield _ANY, outer


def _layers(view: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        seen.add(id(view))
        yield view
        view = getattr(view, "__wrapped__", None)


def _held(function: Any, name: str) -> Any:
    """Return what a function holds under a name that is not its own, as decorators hold what they wrap."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells or name not in code.co_freevars:
        return getattr(function, "__self__", None) if name == "self" else None
    try:
        return cells[code.co_freevars.index(name)].cell_contents
    except ValueError:
        return None


def _of_function(function: Any) -> Demand:
    found = Demand()
    for layer in _layers(function):
        found = found.also(Demand(required_scopes(layer)))
    return found


# --- classes -------------------------------------------------------------------------------------------------


def _of_class(cls: Any, view: Any) -> Iterator[tuple[str, Demand]]:
    actions: dict[str, str] | None = getattr(view, "actions", None)
    given = actions or {name: name for name in _METHODS if callable(getattr(cls, name, None))}
    for method, name in given.items():
        handler = getattr(cls, name, None)
        if handler is None or method in ("head", "options"):
            continue
        demand = _of_function(getattr(cls, "dispatch", None)).also(_of_function(handler))
        inner = _held(handler, "func")
        if callable(inner) and hasattr(cls, "permission_classes"):
            demand = demand.also(_of_function(inner))  # of @api_view
        yield method.upper(), demand.also(_of_permissions(cls, view, method, name if actions else None))


def _of_permissions(cls: Any, view: Any, method: str, action: str | None) -> Demand:
    if not hasattr(cls, "permission_classes"):
        return Demand()
    try:
        permissions = _instance(cls, view, method, action).get_permissions()
        unknown = Demand()
    except Exception:  # noqa: BLE001 - whatever it wants of a request that there is none of
        given = getattr(view, "initkwargs", None) or {}
        permissions = [one() for one in given.get("permission_classes", cls.permission_classes)]
        unknown = Demand(others=("what get_permissions() decides",))
    found = unknown
    for permission in permissions:
        found = found.also(_of_permission(permission))
    return found


def _instance(cls: Any, view: Any, method: str, action: str | None) -> Any:
    """Return a view object as REST framework has it, without a request."""
    made = cls(**(getattr(view, "initkwargs", None) or {}))
    made.request = made.format_kwarg = None
    made.args, made.kwargs = (), {}
    if action is not None:
        made.action, made.action_map = action, {method: action}
    return made


def _of_permission(permission: Any) -> Demand:
    operator = type(permission).__name__
    parts = [_of_permission(getattr(permission, name)) for name in ("op1", "op2") if hasattr(permission, name)]
    if not parts:
        return Demand(frozenset(getattr(permission, "required", ())))
    if operator == "AND":
        return parts[0].also(parts[1])
    if not any(parts):
        return Demand()
    if operator == "NOT":
        return Demand(others=(f"not {_in_words(parts[0], permission.op1)}",))
    words = dict.fromkeys((_in_words(parts[0], permission.op1), _in_words(parts[1], permission.op2)))
    return Demand(others=(" or ".join(words),))


def _in_words(demand: Demand, permission: Any) -> str:
    if not demand:
        return type(permission).__name__
    return " and ".join([*([" ".join(sorted(demand.scopes))] if demand.scopes else []), *demand.others])


# --- operations of Ninja -------------------------------------------------------------------------------------


def _of_operation(operation: Any) -> Demand:
    found = _of_function(operation.view_func)
    callbacks = list(operation.auth_callbacks)
    demanded = [frozenset(getattr(one, "scopes", ())) for one in callbacks]
    if len(callbacks) == 1:
        return found.also(Demand(demanded[0]))
    if not any(demanded):
        return found
    words = [" ".join(sorted(scopes)) or type(one).__name__ for scopes, one in zip(demanded, callbacks, strict=True)]
    return found.also(Demand(others=(" or ".join(dict.fromkeys(words)),)))
