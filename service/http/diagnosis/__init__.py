"""The diagnosis of a task, as the API shows it."""
