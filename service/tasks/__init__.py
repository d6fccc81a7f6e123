"""The use cases: they take and return values, and know no HTTP."""
