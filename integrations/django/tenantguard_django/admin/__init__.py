"""The admin, one tenant at a time: ``TenantAdminSite`` and ``TenantModelAdmin``, which keep its history by tenant."""
