"""tenantguard for FastAPI: typed dependencies, scopes that show in OpenAPI, sessions as dependencies.

It only translates: the decisions are those of `tenantguard.scopes` and of the middleware, which must be on the app.
"""

from tenantguard_fastapi.identity import CurrentActor, CurrentIdentity, CurrentTenant
from tenantguard_fastapi.security import scopes
from tenantguard_fastapi.sessions import session_dependency

__all__ = ["CurrentActor", "CurrentIdentity", "CurrentTenant", "scopes", "session_dependency"]
