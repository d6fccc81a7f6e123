"""The use case of doing once what a client asks for again and again.

Of two at once the second is refused, not held: it would hold its whole body meanwhile, and replicas
would have to tell each other when the first is done. The client asks again in a moment.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.errors import DeadlineError, RequestError, ServerStoppingError
from service.stores.errors import QuotaFullError, RevisionConflictError, StoreError
from service.stores.once.kept import OnceStore
from service.tasks.once.errors import (
    IdempotencyAnswerGoneError,
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
)

AGAIN_S = 2.0  # when it is worth asking again for what is being done

log = logging.getLogger("kshot.tasks")


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks for.

    Args:
        name: Of the request: a hash of tenant, route and key.
        fingerprint: Of what was sent.
        seed: What the ids of what it makes come from, if it is the first.
        task_id: The task that it changes; None where it makes one, whose id is the seed.
        make: Does it, by the seed, and returns the answer.
        find: Returns the answer if it has been done by this seed.
    """

    name: str
    fingerprint: str
    seed: str
    task_id: str | None
    make: Callable[[str], Awaitable[bytes]]
    find: Callable[[str], Awaitable[bytes | None]]


class Once:
    """Does work once for each name, and gives the first answer again.

    Args:
        store: Remembers.
        keep_s: For how long.
    """

    def __init__(self, store: OnceStore, keep_s: float) -> None:
        self.store = store
        self.keep_s = keep_s

    async def answer(self, work: Work) -> bytes:
        """Do the work, or return the answer of when it was done.

        Raises:
            IdempotencyKeyReusedError: Something else was sent under this name.
            IdempotencyInProgressError: It is being done.
            IdempotencyAnswerGoneError: What it made is gone.
        """
        name, seed = work.name, work.seed
        standing = await self.store.begin(name, work.fingerprint, seed, keep_s=self.keep_s)
        if standing.state == "other":
            raise IdempotencyKeyReusedError(
                "This Idempotency-Key was sent before with another request; take a new key for "
                "what is new, and send a retry as it was."
            )
        if standing.state == "held":
            raise IdempotencyInProgressError(
                "The request with this Idempotency-Key is still being done; ask again shortly.",
                retry_after_s=AGAIN_S,
            )
        if standing.state == "done":
            kept = await self.store.answer(name, work.task_id or standing.seed)
            return kept or await self._found(work, standing.seed)
        try:
            done = None if standing.state == "new" else await work.find(standing.seed)
            if done is None:
                done = await self._made(work, standing.seed)
        except BaseException as error:
            await self._leave(name, forget=standing.state == "new" and _made_nothing(error))
            raise
        await self._finish(work, standing.seed, done)
        return done

    async def _made(self, work: Work, seed: str) -> bytes:
        try:
            return await work.make(seed)
        except RevisionConflictError:  # somebody who seemed to be gone was faster
            return await self._found(work, seed)

    async def _found(self, work: Work, seed: str) -> bytes:
        if (found := await work.find(seed)) is None:
            raise IdempotencyAnswerGoneError(
                "The request with this Idempotency-Key was done, and what it made is gone; take a "
                "new key to make it again."
            )
        return found

    async def _finish(self, work: Work, seed: str, answer: bytes) -> None:
        """Keep the answer; without it, a retry gets what it made as it then stands."""
        try:
            await self.store.finish(work.name, work.task_id or seed, answer, keep_s=self.keep_s)
        except StoreError as error:
            log.warning("An answer could not be kept (%s)", error.code)

    async def _leave(self, name: str, *, forget: bool) -> None:
        try:
            await self.store.leave(name, forget=forget)
        except StoreError as error:  # then it is free in seconds, and bound to its seed
            log.warning("A request could not be given up (%s)", error.code)


def _made_nothing(error: BaseException) -> bool:
    """Tell whether a request that failed so certainly left nothing: no write of it was begun."""
    passed = isinstance(error, (DeadlineError, ServerStoppingError))
    return isinstance(error, (RequestError, QuotaFullError)) and not passed
