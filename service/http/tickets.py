"""What a request was let in with: whose it is, until when, and what it holds."""

from dataclasses import dataclass

from service.http.credits import Hold
from service.http.deadlines import Deadline


@dataclass(frozen=True, slots=True)
class Ticket:
    """Made by `service.http.admission`, given back by it when the request is over."""

    tenant: str
    deadline: Deadline
    hold: Hold
