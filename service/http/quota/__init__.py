"""Quotas in HTTP: header fields and the answer of `GET /usage`."""
