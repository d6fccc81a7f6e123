"""What is asked of every store of requests that may be sent again.

A request is reserved before its work begins. What it makes gets ids that come from its seed, so the
reservation is bound to what was made before that is there: whoever is killed in between leaves a
task that the retry finds. The answer is kept beside the task and goes with it.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from service.stores import sealing
from service.stores.errors import StoreCorruptError


@dataclass(frozen=True, slots=True)
class Standing:
    """How a request stands that came now.

    Args:
        state: `new`: the caller is the first and does it; `again`: the caller does it, and somebody
            who is gone may have; `held`: somebody does it now; `done`: it was answered; `other`:
            the name stands for another request.
        seed: What the ids of what it makes come from.
    """

    state: Literal["new", "again", "held", "done", "other"]
    seed: str

    @property
    def mine(self) -> bool:
        """Whether the caller is to do it, and to say how that ended."""
        return self.state in ("new", "again")


class OnceStore(Protocol):
    """Keeps how requests stand, by hashed names; every method may raise `StoreUnavailableError`.

    A reservation is on the disk no later than a task that is stored after it. Whoever holds one and
    is gone loses it within seconds.
    """

    async def begin(self, name: str, fingerprint: str, seed: str, *, keep_s: float) -> Standing:
        """Reserve a request, or say how it stands.

        Args:
            name: Its hashed name.
            fingerprint: Of what was sent.
            seed: Taken if it is new.
            keep_s: How long that is remembered.
        """
        ...

    async def finish(self, name: str, task_id: str, answer: bytes, *, keep_s: float) -> None:
        """Keep the answer to a request, as long as its task lives; ends the reservation."""
        ...

    async def leave(self, name: str, *, forget: bool) -> None:
        """End the reservation without an answer.

        Args:
            name: Of the request.
            forget: Whether it certainly made nothing, so that the name is free again.
        """
        ...

    async def answer(self, name: str, task_id: str) -> bytes | None:
        """Return the answer to a request that is done; None where it went, with its task, say."""
        ...


def seal_answer(name: str, task_id: str, answer: bytes) -> bytes:
    """Return an answer as it is stored."""
    return sealing.seal(f"answer/{task_id}/{name}", answer)


def read_answer(name: str, task_id: str, sealed: object) -> bytes | None:
    """Return an answer; None when it is damaged, since it can be made of the task again."""
    try:
        return bytes(sealing.unseal(f"answer/{task_id}/{name}", sealed))
    except StoreCorruptError:
        return None
