"""What the OpenAPI document says of answers whose requests are charged."""

from typing import Any

# Operations that bring work, by their id.
CHARGED = frozenset(
    ("createTask", "importTask", "addClips", "putLabel", "answerQuery", "classify", "timeline")
)
FIELDS: dict[str, Any] = {
    "RateLimit-Policy": {
        "description": "Quotas of the tenant, where it has some: an item each, `q` the most of it, "
        "`w` in how many seconds (draft-ietf-httpapi-ratelimit-headers).",
        "schema": {"type": "string"},
        "example": '"tasks";q=100;qu="tasks", "frames";q=6000;qu="frames";w=60',
    },
    "RateLimit": {
        "description": "What is left of them: `r`, until they are whole again in `t` seconds.",
        "schema": {"type": "string"},
        "example": '"tasks";r=88, "frames";r=5400;t=37',
    },
}


def tell_of_quotas(operation: dict[str, Any]) -> None:
    """Add the header fields to the answers of an operation that is charged."""
    if operation["operationId"] in CHARGED:
        for status, answer in operation["responses"].items():
            if status < "300" or status in ("409", "413", "429"):
                answer["headers"] = {
                    name: {"$ref": f"#/components/headers/{name}"} for name in FIELDS
                }
