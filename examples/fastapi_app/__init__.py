"""A small document service of several companies, with a copilot that acts for its users."""
