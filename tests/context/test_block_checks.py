"""Each check of the blocks that bind and of the permits behind them, at the moment in which it counts."""

import contextvars
import copy
import inspect
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import msgspec
import pytest

from tenantguard import bind, read_tenants, service_identity, system
from tenantguard.binding import Binding, bound_id, current_binding, enter_binding, leave_binding
from tenantguard.errors import BindingError
from tenantguard.permits import allow_raw

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
NOBODYS = msgspec.structs.replace(A, tenant=None)


def now() -> Binding:
    binding = current_binding()
    assert binding is not None
    return binding


# --- blocks --------------------------------------------------------------------------------------------------


def test_a_block_that_was_not_entered_is_not_left() -> None:
    block = bind(A)
    with pytest.raises(BindingError, match="never entered or is left twice"):
        block.__exit__(None, None, None)
    with block:
        pass
    with pytest.raises(BindingError, match="never entered or is left twice"):
        block.__exit__(None, None, None)


def test_generators_of_both_kinds_are_not_decorated() -> None:
    def sync() -> Iterator[None]:
        yield

    async def asynchronous() -> AsyncIterator[None]:
        yield

    for function in (sync, asynchronous):
        with pytest.raises(BindingError, match="can't decorate the generator"):
            bind(A)(function)


class Later:
    """Can be awaited, and is no coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def coroutine() -> None:
    pytest.fail("It was to be closed.")


async def asynchronous_generator() -> AsyncIterator[None]:
    yield


LATER: dict[str, Callable[[], Any]] = {
    "coroutine": coroutine,
    "awaitable": Later,
    "generator": lambda: (number for number in range(3)),
    "asynchronous generator": asynchronous_generator,
}


@pytest.mark.parametrize("name", LATER)
def test_a_function_whose_result_runs_after_the_block_is_refused(name: str) -> None:
    made: list[Awaitable[None]] = []

    def function() -> Any:
        made.append(LATER[name]())
        return made[0]

    with pytest.raises(BindingError, match="runs only after the block"):
        bind(A)(function)()
    if inspect.iscoroutine(made[0]):
        assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


# --- permits -------------------------------------------------------------------------------------------------


def test_a_system_context_has_no_tenant_although_it_has_an_identity() -> None:
    with bind(A), system("a test"):
        assert now().identity is A
        assert bound_id(now(), "tenant") is None


def test_a_permit_that_is_copied_is_the_same_permit() -> None:
    with system("a test"):
        permit = now().system
        assert permit is not None
        assert copy.copy(permit) is permit
        assert copy.deepcopy(permit) is permit
        assert copy.deepcopy({"permit": permit})["permit"] is permit
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(permit)


WIDENING: dict[str, Callable[[], Any]] = {
    "allow_raw": lambda: allow_raw("a test"),
    "read_tenants": lambda: read_tenants(["b"], reason="a test"),
}


@pytest.mark.parametrize("name", WIDENING)
def test_a_right_is_widened_where_a_tenant_is_bound_alone(name: str) -> None:
    block = WIDENING[name]
    with pytest.raises(BindingError, match="no tenant is bound"), block():
        pass
    for outer in (system("a test"), bind(NOBODYS)):
        with outer, pytest.raises(BindingError, match="no tenant is bound"), block():
            pass
    with bind(A), system("a test"), pytest.raises(BindingError, match="no tenant is bound"), block():
        pass
    token = enter_binding(Binding(None))
    with pytest.raises(BindingError, match="no tenant is bound"), block():
        pass
    leave_binding(token)


def test_every_permit_is_looked_at() -> None:
    with bind(A), read_tenants(["b"], reason="a test"):
        with allow_raw("a test"):
            inside = contextvars.copy_context()
            assert now().raw is not None
        assert inside.run(now).raw is None
        assert inside.run(now).reads == {"b"}
    with bind(A), allow_raw("a test"):
        with read_tenants(["b"], reason="a test"):
            inside = contextvars.copy_context()
        assert inside.run(now).reads == frozenset()
        assert inside.run(now).raw is not None


def test_a_block_that_is_entered_where_another_has_ended_counts_for_itself() -> None:
    with bind(A), allow_raw("a test"):
        inside = contextvars.copy_context()

    def enter() -> None:
        with read_tenants(["b"], reason="a test"):
            assert now().reads == {"b"}
            assert now().raw is None

    inside.run(enter)
