"""tenantguard with Redis: what several workers must know together.

It only stores and looks up: the decisions are those of `tenantguard.tokens`. Whatever goes wrong with Redis is a
`StoreUnavailable`, so that a request which can't be checked is refused.
"""

from tenantguard_redis.connections import RedisConnections
from tenantguard_redis.replays import RedisReplays
from tenantguard_redis.revocations import RedisRevocations

__all__ = ["RedisConnections", "RedisReplays", "RedisRevocations"]
