"""How a task stands, as server-sent events."""
