"""Features of queries and supports to logits."""
