"""One queue of work that tenants share fairly: deficit round-robin, counted in frames.

Each tenant in turn may spend a quantum of frames; what it could not spend, because its next work is
larger, it keeps for its next turn. Within a tenant, work leaves in the order it came.
"""

from collections import OrderedDict
from collections.abc import Iterator

from service.engine.work import Work


class FairQueue:
    """Work of one class.

    Args:
        quantum: Frames that a tenant may spend in one turn; the smaller, the finer the mixture.
    """

    def __init__(self, quantum: int) -> None:
        self.quantum = quantum
        self.frames = 0
        self._by_tenant: OrderedDict[str, OrderedDict[Work, None]] = OrderedDict()
        self._backlog: dict[str, int] = {}
        self._credit: dict[str, int] = {}
        self._granted = False  # whether the tenant whose turn it is has had its quantum

    def __iter__(self) -> Iterator[Work]:
        for queue in self._by_tenant.values():
            yield from queue

    def __bool__(self) -> bool:
        return bool(self._by_tenant)

    def push(self, work: Work) -> None:
        """Put work behind that of its tenant."""
        self._by_tenant.setdefault(work.tenant, OrderedDict())[work] = None
        self._backlog[work.tenant] = self._backlog.get(work.tenant, 0) + work.frames
        self.frames += work.frames

    def peek(self) -> Work | None:
        """Return the work whose turn it is."""
        while self._by_tenant:
            tenant, queue = next(iter(self._by_tenant.items()))
            if not self._granted:
                self._credit[tenant] = self._credit.get(tenant, 0) + self.quantum
                self._granted = True
            head = next(iter(queue))
            if head.frames <= self._credit[tenant]:
                return head
            self._by_tenant.move_to_end(tenant)
            self._granted = False
        return None

    def pop(self) -> Work | None:
        """Take the work whose turn it is, at its tenant's expense."""
        work = self.peek()
        if work is not None:
            self._credit[work.tenant] -= work.frames
            self.discard(work)
        return work

    def discard(self, work: Work) -> bool:
        """Take work out at nobody's expense; tell whether it was there."""
        queue = self._by_tenant.get(work.tenant)
        if queue is None or work not in queue:
            return False
        del queue[work]
        self.frames -= work.frames
        self._backlog[work.tenant] -= work.frames
        if not queue:
            if next(iter(self._by_tenant)) == work.tenant:
                self._granted = False
            del self._by_tenant[work.tenant], self._backlog[work.tenant]
            self._credit.pop(work.tenant, None)  # credit is for those who wait
        return True

    def ahead(self, tenant: str, frames: int) -> int:
        """Return the frames that leave before a tenant's next work of so many frames is done."""
        own = self._backlog.get(tenant, 0)
        turn = own + frames + self.quantum
        return own + sum(
            min(backlog, turn) for other, backlog in self._backlog.items() if other != tenant
        )
