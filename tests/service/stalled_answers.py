"""`python -m service` whose answers to requests with an Idempotency-Key never leave.

What they ask for is done and safe by then; a test kills the process at that moment.
"""

import asyncio

from service import __main__ as serving
from service.tasks.once.once import Once, Work


async def for_ever(_: Once, work: Work, seed: str, answer: bytes) -> None:
    """Take the place of what keeps the answer."""
    del work, seed, answer
    await asyncio.Event().wait()


def main() -> int | None:
    """Serve so."""
    Once._finish = for_ever  # type: ignore[method-assign]
    return serving.main()
