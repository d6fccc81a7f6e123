"""Queries that a task remembers, so that its answers can be corrected and learnt from."""
