"""What the service answers, by the names of docs/openapi.json."""
