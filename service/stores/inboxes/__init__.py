"""Queries that tasks remember, until somebody says what they are: values, and both stores."""
