"""The migrations of the admin's history."""
