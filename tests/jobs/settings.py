"""What the workers of these tests share: keys, stores and tenants, all in one Redis, and what their tasks write there."""

import asyncio
import json
import os
from typing import Any

import redis
from tenantguard_redis import RedisReplays, RedisRevocations

from tenantguard import Revocations, Tenant, TenantStatus, service_identity
from tenantguard.binding import current_binding
from tenantguard.jobs import JobKeys, Jobs

__all__ = ["RedisTenants", "make_jobs", "note", "redis_url"]

SECRET = b"a secret that only these tests know, 32+"


def redis_url(database: int = 0) -> str:
    return os.environ["TENANTGUARD_TEST_REDIS"].rsplit("/", 1)[0] + f"/{database}"


class RedisTenants:
    """The tenants, of which Redis knows who is suspended."""

    async def get(self, tenant_id: str) -> Tenant | None:
        suspended = await asyncio.to_thread(_suspended, tenant_id)
        return Tenant(tenant_id, status=TenantStatus.SUSPENDED if suspended else TenantStatus.ACTIVE)


def _suspended(tenant_id: str) -> bool:
    with redis.Redis.from_url(redis_url()) as connection:
        return bool(connection.sismember("suspended", tenant_id))


def make_jobs(prefix: str, **options: Any) -> Jobs:
    url = redis_url()
    jobs = Jobs(
        JobKeys(SECRET),
        service="worker",
        revocations=Revocations(feed=RedisRevocations(url, name=f"{prefix}:revocations")),
        directory=RedisTenants(),
        replays=RedisReplays(url, prefix=f"{prefix}:replays:"),
        **options,
    )
    jobs.declare(f"{prefix}.report", scopes="documents:read", max_age=600)
    jobs.declare(f"{prefix}.nested", scopes="documents:read documents:write")
    jobs.declare(f"{prefix}.failing", scopes="documents:read")
    jobs.declare(f"{prefix}.short", max_age=1)
    jobs.declare(
        f"{prefix}.nightly", runs_as=service_identity("invoice-run", tenant="globex", scopes={"invoices:write"})
    )
    jobs.declare(
        f"{prefix}.scheduled", runs_as=service_identity("invoice-run", tenant="globex", scopes={"invoices:write"})
    )
    return jobs


def note(word: str) -> str:
    """Write down as whom this code runs."""
    binding = current_binding()
    found = None if binding is None else binding.identity
    line = {"word": word, "tenant": None, "chain": [], "scopes": [], "token": False}
    if found is not None:
        line |= {
            "tenant": found.tenant.id if found.tenant else None,
            "chain": [f"{party.id}:{party.type}" for party in found.chain],
            "scopes": sorted(found.scopes),
            "token": binding is not None and binding.credential is not None,
        }
    with redis.Redis.from_url(redis_url()) as connection:
        connection.rpush(f"noted:{word}", json.dumps(line))
    return word
