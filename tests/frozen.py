"""A million objects of libraries, kept out of garbage collections: a full one takes a second.

Each service begins with a full collection and freezes what is there; when it ends, all is thawed.
"""

import gc

COLLECT_EVERY = 20  # thaws; what tests leave is frozen with the rest until then
thaws = 0
thawed = True  # gc.get_freeze_count() would tell, and counts a million objects one by one
_unfreeze = gc.unfreeze


def _noted_unfreeze() -> None:
    """Thaw, and note it."""
    global thawed
    thawed = True
    _unfreeze()


gc.unfreeze = _noted_unfreeze


def freeze_again() -> None:
    """Freeze what a service thawed, if one did."""
    global thaws, thawed
    if not thawed:
        return
    thawed = False
    thaws += 1
    if thaws % COLLECT_EVERY == 0:
        gc.collect()
    gc.freeze()
