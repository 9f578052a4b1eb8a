"""tenantguard for Django."""
