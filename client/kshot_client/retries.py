"""When a request is sent again: what the service calls retryable, and lost connections."""

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from kshot_client.calls import Call, Open, Pause, Send, Step
from kshot_client.problems import KshotError, NoAnswerError, problem_of

T = TypeVar("T")
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and after how long, a request is sent again.

    Args:
        most: How often at most; 0 never.
        first_s: The first pause, seconds; each is twice the one before, less a random part.
        longest_s: The longest pause. A service that asks for more gets no further request.
    """

    most: int = 4
    first_s: float = 0.5
    longest_s: float = 60.0

    def pause_s(self, tried: int, asked_s: float | None) -> float | None:
        """Return how long to wait, or None to give up.

        Args:
            tried: How often it was sent again already.
            asked_s: What the service asks for.
        """
        if tried >= self.most or (asked_s or 0.0) > self.longest_s:
            return None
        most_s = min(self.longest_s, self.first_s * 2.0**tried)
        spread = most_s * random.uniform(0.5, 1.0)
        return max(asked_s or 0.0, spread)


def persistent(flow: Generator[Any, Any, T], retries: Retries) -> Generator[Any, Any, T]:
    """Carry out a flow whose requests are sent again where that may help."""
    reply: object = None
    fault: KshotError | None = None
    while True:
        try:
            step = flow.send(reply) if fault is None else flow.throw(fault)
        except StopIteration as end:
            value: T = end.value
            return value
        reply, fault = None, None
        try:
            match step:
                case Send() | Open():
                    reply = yield from _exchange(step, step.call, retries)
                case _:
                    reply = yield step
        except httpx.TransportError as error:  # while pieces are read
            fault = NoAnswerError(f"The connection broke ({_said(error)}); ask again.")
            fault.__cause__ = error
        except KshotError as error:
            fault = error


def _exchange(step: Step, call: Call, retries: Retries) -> Generator[Step, Any, httpx.Response]:
    """Send a request until it succeeds or nothing is gained by sending it again.

    Raises:
        ProblemError: It was refused.
        NoAnswerError: There is no answer.
    """
    tried = 0
    while True:
        fault: KshotError
        asked_s = None
        try:
            answer: httpx.Response = yield step
        except httpx.TransportError as error:
            again = call.repeatable or isinstance(error, UNSENT)
            fault = NoAnswerError(
                f"{call.method} {call.path} got no answer ({_said(error)}); check the address of "
                "the service, and that it runs."
            )
            fault.__cause__ = error
        else:
            if answer.is_success:
                return answer
            fault = problem_of(answer)
            again, asked_s = fault.retryable, fault.retry_after_s
        pause_s = retries.pause_s(tried, asked_s) if again else None
        if pause_s is None:
            raise fault
        yield Pause(pause_s)
        tried += 1


def _said(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
