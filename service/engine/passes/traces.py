"""Passes as traces: on a processor, one call for a whole pass instead of one an operation.

Every operation that Python calls takes the interpreter's lock when it is done, and waits for it as
long as the event loop or another lane is in Python. A trace lets the lock go once for all.

Dimensions: B clips, T frames.
"""

import logging
import warnings

import torch
from torch import Tensor

from model.recognizer import SLICE_CLIPS
from service.engine.passes.graphs import Pass

log = logging.getLogger("kshot.engine")


class TracedPass:
    """A pass of any number of clips, as the operations that it was seen to do.

    Args:
        run: From clips, [B, T, ...], to what is made of each; it does the same for any number.
        clip: One clip, as the pass takes it: [T, ...] of its type.

    Raises:
        RuntimeError: It cannot be traced, or does something else for another number of clips.
    """

    buckets = ()  # any number of frames is as good

    def __init__(self, run: Pass, clip: Tensor) -> None:
        two = torch.stack([clip, clip.flip(0)])
        with torch.inference_mode():
            with warnings.catch_warnings():
                # Traces are superseded by compilers, which the image does without; and whether
                # what is taken for constant is so, shows below.
                warnings.simplefilter("ignore")
                self._traced = torch.jit.trace(
                    lambda given: run(given),  # a module's own method it would refuse
                    (two,),
                    check_trace=False,
                )
            if not torch.equal(self._traced(two[:1]), run(two[:1])):
                raise RuntimeError("what was traced gives other values for one clip")

    @torch.inference_mode()
    def __call__(self, given: Tensor) -> Tensor:
        """Run clips."""
        parts: list[Tensor] = [self._traced(part) for part in given.split(SLICE_CLIPS)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def traced_or_none(run: Pass, clip: Tensor) -> TracedPass | None:
    """Trace a pass, or say in the log why it runs as it comes."""
    try:
        return TracedPass(run, clip)
    except (AttributeError, RuntimeError) as error:  # the former of a torch without traces
        log.warning("A pass runs operation by operation: %s", error)
        return None
