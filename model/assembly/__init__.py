"""Configs to modules: the only place that knows all parts, one module a slot."""
