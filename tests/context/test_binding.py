"""What is bound is seen where it should be, and nowhere else."""

import contextlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest

from tenantguard import bind, current_actor, current_identity, current_tenant, service_identity, system
from tenantguard.binding import Credential
from tenantguard.context import current_credential, current_system
from tenantguard.errors import BindingError, NotBound

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))


def bound() -> str | None:
    try:
        return current_tenant().id
    except NotBound:
        return None


def test_blocks_nest_and_put_the_former_state_back() -> None:
    assert bound() is None
    with bind(A):
        with bind(B):
            assert bound() == "b"
        assert bound() == "a"
        assert current_actor() == A.actor == current_identity().subject
    assert bound() is None


def test_an_exception_puts_the_former_state_back() -> None:
    with pytest.raises(ZeroDivisionError), bind(A):
        _ = 1 / 0
    assert bound() is None


def test_a_block_decorates_functions_and_coroutine_functions() -> None:
    @bind(A)
    def sync() -> str | None:
        return bound()

    @bind(B)
    async def asynchronous() -> str | None:
        await anyio.sleep(0)
        return bound()

    assert sync() == "a"
    assert anyio.run(asynchronous) == "b"
    assert bound() is None


@pytest.mark.anyio
async def test_tasks_and_worker_threads_inherit_and_never_cross() -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def work(tenant: str) -> None:
        async with bind(service_identity("t", tenant=tenant)):
            await anyio.sleep(0.001)
            async with anyio.create_task_group() as inner:
                inner.start_soon(anyio.sleep, 0)
            seen.append((tenant, bound(), await anyio.to_thread.run_sync(bound)))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(work, f"tenant-{number}")
    assert len(seen) == 100
    assert all(expected == here == there for expected, here, there in seen)
    assert bound() is None


def test_a_bare_thread_inherits_nothing() -> None:
    seen: list[str | None] = []
    with bind(A):
        thread = threading.Thread(target=lambda: seen.append(bound()))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(bound).result())
    assert seen == [None, None]


def test_generators_can_not_bind_for_their_callers() -> None:
    def leaky():
        with bind(A):
            yield bound()

    with pytest.raises(BindingError, match="generator"):
        next(leaky())
    assert bound() is None
    with pytest.raises(BindingError, match="generator"):
        bind(A)(leaky)


@pytest.mark.anyio
async def test_async_generators_can_not_bind_for_their_callers() -> None:
    async def leaky():
        async with bind(A):
            yield bound()

    with pytest.raises(BindingError, match="generator"):
        await anext(leaky())
    assert bound() is None


def test_context_managers_made_of_generators_may_bind() -> None:
    @contextlib.contextmanager
    def as_a():
        with bind(A):
            yield

    with as_a():
        assert bound() == "a"
    with contextlib.ExitStack() as stack:
        stack.enter_context(bind(B))
        assert bound() == "b"
    assert bound() is None


def test_a_generator_that_only_reads_sees_its_callers_binding() -> None:
    def reading():
        while True:
            yield bound()

    reader = reading()
    with bind(A):
        assert next(reader) == "a"
    with bind(B):
        assert next(reader) == "b"
    assert next(reader) is None


def test_system_has_a_reason_no_tenant_and_an_end(caplog: pytest.LogCaptureFixture) -> None:
    with bind(A, Credential("secret")), system("nightly run") as block:
        assert current_system() is not None
        assert bound() is None
        with pytest.raises(NotBound):
            current_credential()
        with bind(B):
            assert bound() == "b"
    assert block is not None
    assert current_system() is None
    assert "nightly run" in caplog.text
    for reason in ("", "  ", None):
        with pytest.raises(BindingError, match="reason"):
            system(reason)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_task_that_outlives_the_system_block_has_no_right_left() -> None:
    left = anyio.Event()
    seen: list[object] = []

    async def late() -> None:
        seen.append(current_system() is not None)
        await left.wait()
        seen.append(current_system())

    async with anyio.create_task_group() as tasks:
        with system("start a task"):
            tasks.start_soon(late)
            await anyio.sleep(0.01)
        left.set()
    assert seen == [True, None]


def test_only_identities_are_bound_and_blocks_are_entered_once() -> None:
    for wrong in (None, "a", 0, [], A.tenant):
        with pytest.raises(BindingError):
            bind(wrong)  # type: ignore[arg-type]
    block = bind(A)
    with block, pytest.raises(BindingError), block:
        pass


def test_a_credential_shows_nothing_and_does_not_leave_the_process() -> None:
    credential = Credential("very-secret")
    assert "secret" not in repr(credential)
    assert "secret" not in str(credential)
    with pytest.raises(TypeError):
        pickle.dumps(credential)


def test_identities_are_immutable_and_hashable() -> None:
    assert len({A, service_identity("test", tenant="a")}) == 1
    with pytest.raises(AttributeError):
        A.tenant = B.tenant  # type: ignore[misc]
