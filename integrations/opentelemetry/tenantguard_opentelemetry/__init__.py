"""tenantguard for OpenTelemetry: spans tell tenant and actor, and baggage does not."""
