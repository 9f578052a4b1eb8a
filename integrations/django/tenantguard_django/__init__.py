"""tenantguard for Django: the door, the barrier in its ORM, and the conventions of its ecosystem.

Importing it imports no model, so it can be imported in a settings module.
"""

from tenantguard_django.decorators import requires

__all__ = ["requires"]
