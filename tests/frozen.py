"""A million objects of libraries, kept out of garbage collections: a full one takes a second.

Each service begins with a full collection and freezes what is there; when it ends, all is thawed.
"""

import gc

COLLECT_EVERY = 20  # thaws; what tests leave is frozen with the rest until then
thaws = 0


def freeze_again() -> None:
    """Freeze what a service thawed, if one did."""
    global thaws
    if gc.get_freeze_count():
        return
    thaws += 1
    if thaws % COLLECT_EVERY == 0:
        gc.collect()
    gc.freeze()
