"""Requests that change a task, and their answers."""
