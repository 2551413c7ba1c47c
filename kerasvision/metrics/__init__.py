"""Metrics by which systems are compared."""
