"""Suites, statistics and reports: how a result is proved."""
