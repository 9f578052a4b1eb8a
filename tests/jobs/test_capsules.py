"""What a capsule holds, what is refused, and what is looked at again when the job runs."""

import json
import time

import anyio
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tenantguard import RevocationKind, Revocations, StaticTenants, Tenant, TenantStatus, service_identity, system
from tenantguard.binding import Credential, current_binding
from tenantguard.context import bind, current_identity
from tenantguard.errors import ConfigurationError, JobRefused, NotBound, StoreUnavailable
from tenantguard.identity import Actor, ActorType, AuthorizationDetail, Confirmation, Identity, Transaction
from tenantguard.jobs import CAPSULE_TYPE, JobGroup, JobKeys, Jobs, arguments_hash, task_name
from tenantguard.jobs.capsules import open_capsule, seal_capsule
from tenantguard.tokens import InMemoryReplays
from tests.support.holder import Holder

pytestmark = pytest.mark.anyio
SECRET, OTHER_SECRET = b"s" * 32, b"o" * 32
KEYS = JobKeys(SECRET)
ALICE = Actor("alice", ActorType.HUMAN, "https://login.example.com", "web", "Alice")
COPILOT = Actor("copilot", ActorType.AGENT, "https://login.example.com", model="m1", version="2")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def identity(**changes):
    now = int(time.time())
    fields = {
        "subject": ALICE,
        "actor": COPILOT,
        "tenant": Tenant("acme"),
        "scopes": frozenset({"documents:read", "documents:write"}),
        "issuer": "https://login.example.com",
        "token_id": "token-1",
        "session_id": "session-1",
        "grant_id": "grant-1",
        "task": "summarise",
        "issued_at": now,
        "expires_at": now + 60,
        "auth_time": now,
        "acr": "loa2",
        "amr": ("otp",),
        "dimensions": (("workspace", "w1"),),
        "authorization_details": (AuthorizationDetail("invoice", '{"type":"invoice","id":7}'),),
        "transaction": Transaction("txn-1", ("gateway", "documents"), '{"amount":1}'),
        "confirmation": Confirmation(jkt="thumbprint"),
    }
    return Identity(**(fields | changes))


def jobs(**options):
    made = Jobs(options.pop("keys", KEYS), service=options.pop("service", "worker"), **options)
    made.declare("export", scopes="documents:read billing:read", max_age=3600)
    return made


def sealed(made=None, task="export", queue="q", arguments=None, **changes):
    with bind(identity(**changes), Credential("the-raw-token")):
        return (made or jobs()).capsule(task, queue=queue, arguments=arguments)


async def opened(text, made=None, task="export", queue="q", arguments=None):
    capsule = await (made or jobs()).open(text, task=task, queue=queue, arguments=arguments)
    return capsule.identity


# --- what is carried ----------------------------------------------------------------------------------------


async def test_a_job_runs_in_the_same_tenant_as_an_actor_narrowed_to_what_was_declared():
    found = await opened(sealed())
    assert (found.tenant.id, found.subject) == ("acme", ALICE)
    assert found.scopes == {"documents:read"}, "of what was declared, what the caller holds"
    assert [party.id for party in found.chain] == ["worker", "copilot", "alice"]
    assert found.actor.type is ActorType.SERVICE
    assert found.prior_actors == (COPILOT,)
    for name in ("session_id", "grant_id", "task", "acr", "amr", "dimensions", "token_id", "issuer", "transaction"):
        assert getattr(found, name) == getattr(identity(), name), name
    assert found.authorization_details[0].value == {"type": "invoice", "id": 7}
    assert found.confirmation is None


async def test_a_task_that_was_not_declared_has_no_scope_at_all():
    found = await opened(sealed(task="other"), task="other")
    assert (found.tenant.id, found.scopes) == ("acme", frozenset())


async def test_a_task_that_was_not_declared_has_no_authorization_details_either():
    made = jobs()
    assert (await opened(sealed(made), made)).authorization_details == identity().authorization_details
    undeclared = await opened(sealed(made, task="undeclared"), made, task="undeclared")
    assert undeclared.authorization_details == ()


async def test_a_job_that_a_job_starts_can_only_lose_rights_and_does_not_lengthen_the_chain():
    made = jobs()
    made.declare("next", scopes="documents:read documents:write")
    with bind(await opened(sealed(made), made)):
        inner = await opened(made.capsule("next", queue="q"), made, task="next")
    assert inner.scopes == {"documents:read"}
    assert [party.id for party in inner.chain] == ["worker", "copilot", "alice"]


def test_a_capsule_is_a_jwt_of_its_own_type_that_holds_no_token():
    text = sealed(arguments=arguments_hash(b"[7]"))
    header, claims = jwt.get_unverified_header(text), jwt.decode(text, options={"verify_signature": False})
    assert (header["typ"], header["alg"]) == ("tenantguard-job+jwt", "EdDSA")
    assert (claims["iss"], claims["aud"], claims["sub"], claims["tenant_id"]) == ("worker", "q/export", "alice", "acme")
    assert claims["act"]["sub"] == "worker"
    assert claims["act"]["act"]["sub"] == "copilot"
    assert claims["scope"] == "documents:read"
    assert 3590 < claims["exp"] - claims["iat"] <= 3600
    assert "the-raw-token" not in json.dumps(claims)


def test_without_anybody_bound_a_job_is_not_started():
    made = jobs()
    with pytest.raises(NotBound, match="runs_as"):
        made.capsule("export", queue="q")
    with bind(identity()), system("nightly run"), pytest.raises(NotBound):
        made.capsule("export", queue="q")


async def test_scheduled_work_without_a_user_runs_as_a_declared_service():
    made = jobs()
    made.declare("nightly", runs_as=service_identity("invoice-run", tenant="acme", scopes={"invoices:write"}))
    found = await opened(made.capsule("nightly", queue="q"), made, task="nightly")
    assert (found.actor.id, found.actor.type, found.tenant.id) == ("invoice-run", ActorType.SERVICE, "acme")
    assert found.scopes == {"invoices:write"}
    with bind(identity()):
        asked = await opened(made.capsule("nightly", queue="q"), made, task="nightly")
    assert (asked.subject.id, asked.scopes) == ("alice", frozenset()), "who is bound goes first, and keeps its rights"


async def test_the_worker_s_own_declaration_of_a_task_takes_away_what_the_producer_s_would_allow():
    producer, worker = jobs(), Jobs(KEYS, service="worker")
    producer.declare("move", scopes="documents:read documents:write")
    worker.declare("move", scopes="documents:read billing:read")
    assert (await opened(sealed(producer, task="move"), worker, task="move")).scopes == {"documents:read"}
    undeclared = await opened(sealed(producer, task="export"), worker, task="export")
    assert (undeclared.scopes, undeclared.authorization_details) == (frozenset(), ())


async def test_a_job_that_waited_longer_than_its_worker_declares_is_refused():
    producer, worker = jobs(), Jobs(KEYS, service="worker")
    worker.declare("export", scopes="documents:read", max_age=1)
    text = sealed(producer)
    assert (await worker.open(sealed(producer), task="export", queue="q")).expires_at <= time.time() + 1
    await anyio.sleep(1.1)
    assert await refusal(text, worker) == "expired"


def scheduled(name="nightly-run", tenant="acme", scopes=("invoices:read", "invoices:write"), **options):
    made = Jobs(KEYS, service="worker")
    made.declare("nightly", runs_as=service_identity(name, tenant=tenant, scopes=set(scopes), **options))
    return made


async def test_scheduled_work_has_no_more_rights_than_its_worker_declares():
    text = scheduled().capsule("nightly", queue="q")
    found = await opened(text, scheduled(scopes=["invoices:read", "admin"]), task="nightly")
    assert (found.subject.id, found.scopes) == ("nightly-run", {"invoices:read"})


@pytest.mark.parametrize(
    "worker",
    [
        lambda: Jobs(KEYS, service="worker"),
        lambda: scheduled(name="other-run"),
        lambda: scheduled(tenant="globex"),
        lambda: scheduled(dimensions={"workspace": "w1"}),
    ],
    ids=["undeclared", "another service", "another tenant", "a part of the tenant"],
)
async def test_scheduled_work_that_its_worker_does_not_declare_to_run_as_this_service_is_refused(worker):
    text = scheduled().capsule("nightly", queue="q")
    assert await refusal(text, worker(), task="nightly") == "declaration"


async def test_who_asks_for_a_scheduled_task_gets_none_of_the_service_s_scopes_though_the_worker_allows_them():
    with bind(identity(scopes=frozenset({"invoices:write"}))):
        text = scheduled().capsule("nightly", queue="q")
    assert (await opened(text, scheduled(), task="nightly")).scopes == frozenset()


async def test_scheduled_work_that_is_tried_again_keeps_its_scopes_and_gains_none():
    made = scheduled()
    first = await opened(made.capsule("nightly", queue="q"), made, task="nightly")
    with bind(msgspec.structs.replace(first, scopes=frozenset({"invoices:read", "admin"}))):
        again = await opened(made.capsule("nightly", queue="q"), made, task="nightly")
    assert (again.subject.id, again.actor.id, again.scopes) == ("nightly-run", "nightly-run", {"invoices:read"})


async def test_housekeeping_that_was_left_unguarded_runs_with_nobody_bound():
    made = jobs()
    made.leave_unguarded("cleanup", "the broker's own")
    assert made.capsule("cleanup", queue="q") is None
    async with made.running(None, task="cleanup", queue="q"):
        assert current_binding() is None


async def test_while_it_runs_the_identity_is_bound_and_afterwards_nobody():
    made = jobs()
    async with made.running(sealed(made), task="export", queue="q"):
        assert current_identity().subject == ALICE
        assert current_binding().credential is None, "the token of the request is long gone"
    assert current_binding() is None


def test_a_blocking_worker_does_the_same():
    made = jobs()
    with made.running_blocking(sealed(made), task="export", queue="q"):
        assert current_identity().tenant.id == "acme"
    with pytest.raises(JobRefused), made.running_blocking("garbage", task="export", queue="q"):
        raise AssertionError("the block must not run")


# --- what is refused ----------------------------------------------------------------------------------------


async def refusal(text, made=None, **options):
    with pytest.raises(JobRefused) as raised:
        await opened(text, made, **options)
    return raised.value.reason


async def test_a_capsule_is_good_for_its_own_job_alone():
    bound = arguments_hash(b"[7]")
    assert await refusal(sealed(), task="delete_everything") == "audience"
    assert await refusal(sealed(), queue="other") == "audience"
    assert await refusal(sealed(arguments=bound), arguments=arguments_hash(b"[8]")) == "arguments"
    assert await refusal(sealed(arguments=bound)) == "arguments"
    assert await refusal(sealed(), arguments=bound) == "arguments"
    assert (await opened(sealed(arguments=bound), arguments=bound)).subject == ALICE


async def test_a_capsule_is_good_once():
    made, text = jobs(), None
    text = sealed(made)
    await opened(text, made)
    assert await refusal(text, made) == "replayed"
    assert await opened(sealed(made), made), "another job of the same caller is another capsule"


async def test_redeliveries_of_the_broker_can_be_allowed_in_number():
    made = jobs(redeliveries=2)
    text = sealed(made)
    for _ in range(3):
        await opened(text, made)
    assert await refusal(text, made) == "replayed"


async def test_of_many_deliveries_at_once_one_alone_runs():
    made, ran, refused = jobs(), [], []
    text = sealed(made)

    async def deliver():
        try:
            ran.append(await opened(text, made))
        except JobRefused as error:
            refused.append(error.reason)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(deliver)
    assert (len(ran), set(refused)) == (1, {"replayed"})


async def test_a_capsule_expires():
    made = jobs()
    text = seal_capsule(KEYS, identity(), service="worker", audience="q/export", max_age=-1)
    assert await refusal(text, made) == "expired"


async def test_no_job_waits_longer_than_its_revocation_is_remembered():
    made = jobs(revocations=Revocations(keep_for=4000))
    capsule = await made.open(sealed(made, task="undeclared"), task="undeclared", queue="q")
    assert capsule.expires_at <= time.time() + 4000


async def test_queue_and_task_are_told_apart_whatever_is_in_their_names():
    made = jobs()
    assert await refusal(sealed(made, queue="a/b", task="c"), made, queue="a", task="b/c") == "audience"
    assert await refusal(sealed(made, queue="a%2Fb", task="c"), made, queue="a/b", task="c") == "audience"


async def test_a_missing_capsule_is_refused():
    for nothing in (None, ""):
        assert await refusal(nothing) == "missing"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (RevocationKind.SUBJECT, "alice"),
        (RevocationKind.ACTOR, "copilot"),
        (RevocationKind.TENANT, "acme"),
        (RevocationKind.GRANT, "grant-1"),
        (RevocationKind.SESSION, "session-1"),
        (RevocationKind.TOKEN, "token-1"),
        (RevocationKind.ACTOR, "worker"),
    ],
    ids=str,
)
@pytest.mark.parametrize("issuer", ["https://login.example.com", None], ids=["issuer", "any issuer"])
async def test_whoever_was_revoked_while_the_job_waited_stops_it(kind, name, issuer):
    revocations = Revocations()
    made = jobs(revocations=revocations)
    text = sealed(made)
    revocations.revoke(kind, name, issuer=None if name == "worker" else issuer)
    assert await refusal(text, made) == "revoked"
    if kind in (RevocationKind.SUBJECT, RevocationKind.TENANT):
        later = sealed(made, issued_at=int(time.time()) + 2)
        assert (await opened(later, made)).subject == ALICE, "who logged in again may start new jobs"


async def test_a_tenant_that_was_suspended_or_removed_while_the_job_waited_stops_it():
    suspended = StaticTenants([Tenant("acme", status=TenantStatus.SUSPENDED)])
    assert await refusal(sealed(), jobs(directory=suspended)) == "tenant"
    assert await refusal(sealed(), jobs(directory=StaticTenants([Tenant("globex")]))) == "tenant"
    assert (await opened(sealed(), jobs(directory=StaticTenants([Tenant("acme")])))).tenant.id == "acme"


class Flaky:
    """A replay store that fails a number of times."""

    def __init__(self, failures):
        self.failures, self.inner = failures, InMemoryReplays()

    async def add(self, key, ttl):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("down")
        return await self.inner.add(key, ttl)


async def test_a_store_that_does_not_answer_is_asked_again_and_then_the_job_is_given_up(monkeypatch):
    monkeypatch.setattr("tenantguard.jobs.jobs.PATIENCE", 0.6)
    assert (await opened(sealed(), jobs(replays=Flaky(1)))).subject == ALICE
    assert await refusal(sealed(), jobs(replays=Flaky(99))) == "unavailable"


# --- forgeries ----------------------------------------------------------------------------------------------


def claims(**changes):
    found = jwt.decode(sealed(), options={"verify_signature": False})
    return {name: value for name, value in (found | changes).items() if value is not ...}


def signed(payload, *, keys=KEYS, typ=CAPSULE_TYPE):
    return keys.sign(payload, typ)


@pytest.mark.parametrize(
    "forge",
    [
        lambda: signed(claims(), keys=JobKeys(OTHER_SECRET)),
        lambda: signed(claims(), typ="at+jwt"),
        lambda: signed(claims(), typ="jwt"),
        lambda: signed(claims(iss="other-service")),
        lambda: signed(claims(iss=...)),
        lambda: signed(claims(exp=...)),
        lambda: signed(claims(exp="tomorrow")),
        lambda: signed(claims(iat=...)),
        lambda: signed(claims(iat=int(time.time()) + 600)),
        lambda: signed(claims(jti=...)),
        lambda: signed(claims(sub=...)),
        lambda: signed(claims(sub="")),
        lambda: signed(claims(actor_type="god")),
        lambda: signed(claims(act={"sub": "worker", "act": {"sub": "worker"}})),
        lambda: signed(claims(act="worker")),
        lambda: signed(claims(tenant_id="no tenant!")),
        lambda: signed(claims(tenant_id=["acme"])),
        lambda: signed(claims(scope=7)),
        lambda: signed(claims(origin=...)),
        lambda: signed(claims(origin="x")),
        lambda: signed(claims(sub_id="x")),
        lambda: signed(claims(dimensions={"tenant": "globex"})),
        lambda: jwt.encode(claims(), SECRET, "HS256", headers={"typ": CAPSULE_TYPE}),
        lambda: jwt.encode(claims(), "", "none", headers={"typ": CAPSULE_TYPE}),
        lambda: jwt.encode(claims(), Ed25519PrivateKey.generate(), "EdDSA", headers={"typ": CAPSULE_TYPE}),
        lambda: jwt.encode(
            claims(),
            Holder().private,
            "ES256",
            headers={"typ": CAPSULE_TYPE, "kid": KEYS.public_jwks["keys"][0]["kid"]},
        ),
        lambda: sealed()[:-4] + "AAAA",
        lambda: ".".join(
            [sealed().split(".")[0], sealed(tenant=Tenant("globex")).split(".")[1], sealed().split(".")[2]]
        ),
        lambda: "x" * 9000,
        lambda: "a.b",
    ],
    ids=[str(number) for number in range(30)],
)
async def test_a_forged_capsule_is_refused(forge):
    assert await refusal(forge()) == "forged"


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail_in_another_way(text):
    with pytest.raises(JobRefused):
        open_capsule(KEYS, text, service="worker", audience="q/export")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "act", "tenant_id", "scope", "origin", "dimensions", "amr", "txn", "tctx", "req_wl"]),
        json_values,
    )
)
def test_no_claims_make_the_reader_fail_in_another_way(changes):
    text = signed(claims(**changes))
    try:
        found = open_capsule(KEYS, text, service="worker", audience="q/export").identity
    except JobRefused:
        return
    assert isinstance(found, Identity)


# --- keys ---------------------------------------------------------------------------------------------------


async def test_keys_can_be_changed_while_jobs_wait():
    old, new = JobKeys(SECRET), JobKeys(OTHER_SECRET, accepted=[SECRET])
    waiting = sealed(jobs(keys=old))
    assert (await opened(waiting, jobs(keys=new))).subject == ALICE
    assert await refusal(sealed(jobs(keys=new)), jobs(keys=old)) == "forged"
    assert await refusal(waiting, jobs(keys=JobKeys(OTHER_SECRET))) == "forged"


async def test_a_worker_needs_no_key_that_signs():
    private = Ed25519PrivateKey.generate()
    text = sealed(jobs(keys=JobKeys(private)))
    only_runs = jobs(keys=JobKeys(accepted=[private.public_key()]))
    assert (await opened(text, only_runs)).subject == ALICE
    with pytest.raises(ConfigurationError, match="no key that signs"):
        sealed(only_runs)


def test_what_can_not_work_is_refused_at_once():
    for wrong in (b"short", "a text of more than thirty-two characters", None):
        with pytest.raises(ConfigurationError):
            JobKeys(wrong)
    with pytest.raises(ConfigurationError, match="service"):
        Jobs(KEYS, service=" ")
    with pytest.raises(ConfigurationError, match="JobKeys"):
        Jobs(SECRET, service="worker")
    with pytest.raises(ConfigurationError, match="redeliveries"):
        Jobs(KEYS, service="worker", redeliveries=-1)
    made = jobs()
    with pytest.raises(ConfigurationError, match="twice"):
        made.declare("export")
    with pytest.raises(ConfigurationError, match="max_age"):
        made.declare("slow", max_age=10**9)
    with pytest.raises(ConfigurationError, match="reason"):
        made.leave_unguarded("cleanup", " ")
    assert SECRET.decode() not in repr([KEYS, made])


# --- the task group -----------------------------------------------------------------------------------------

seen = []


async def note(word):
    await anyio.sleep(0)
    binding = current_binding()
    seen.append((word, binding and binding.identity, binding and binding.credential))


async def fail():
    raise ValueError("broken")


async def test_a_task_of_a_group_runs_as_whom_it_was_started_for_with_declared_rights_and_without_the_token():
    seen.clear()
    made = jobs()
    made.declare(task_name(note), scopes="documents:read")
    async with JobGroup(made) as group:
        for tenant in ("acme", "globex"):
            with bind(identity(tenant=Tenant(tenant)), Credential("raw")):
                group.start_soon(note, tenant)
        with pytest.raises(NotBound):
            group.start_soon(note, "nobody")
    assert sorted((word, found.tenant.id, found.scopes, credential) for word, found, credential in seen) == [
        ("acme", "acme", frozenset({"documents:read"}), None),
        ("globex", "globex", frozenset({"documents:read"}), None),
    ]


async def test_a_task_of_a_group_is_looked_at_when_it_starts_and_failures_take_nothing_from_the_others(caplog):
    seen.clear()
    letters, revocations = [], Revocations()
    made = jobs(revocations=revocations, dead_letter=letters.append)
    async with JobGroup(made) as group:
        with bind(identity()):
            group.start_soon(note, "revoked", name="export")
            revocations.revoke(RevocationKind.SUBJECT, "alice")
        with bind(identity(subject=msgspec.structs.replace(ALICE, id="bob"))):
            group.start_soon(fail, name="export")
            group.start_soon(note, "good", name="export")
    assert [word for word, _, _ in seen] == ["good"]
    assert [(letter.task, letter.queue, letter.reason) for letter in letters] == [("export", "process", "revoked")]
    assert "The task export failed" in caplog.text


async def test_a_group_that_closes_ends_those_that_do_not_end_by_themselves():
    began = anyio.current_time()
    made = jobs()
    with pytest.raises(RuntimeError, match="not open"):
        JobGroup(made).start_soon(note, "x")
    with bind(identity()):
        async with JobGroup(made, grace=0.1) as group:
            group.start_soon(anyio.sleep, 60, name="export")
    assert anyio.current_time() - began < 30
