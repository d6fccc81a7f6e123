"""What the demos ask of the service, through the client that users have."""

from collections.abc import Sequence
from pathlib import Path

from kshot_client import Client, KshotError
from kshot_client.models.results import ClipResult


def answers(client: Client, task_id: str, clips: Sequence[Path]) -> list[ClipResult]:
    """Classify clips, in order.

    Raises:
        KshotError: One of them cannot be read, or the service refuses.
    """
    results = list(client.classify_all(task_id, clips))
    for path, result in zip(clips, results, strict=True):
        if result.error is not None:
            raise KshotError(f"{path.name} could not be read: {result.error.detail}")
    return results


def model_of(client: Client) -> dict[str, object]:
    """Return which model answers, as a demo's JSON names it."""
    model = client.info().model
    return {"model": model.name, "model_revision": model.fingerprint}
