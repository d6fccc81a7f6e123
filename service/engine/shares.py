"""How a batch is parted among cores, and how large it is."""

import itertools

import torch

from service.engine.runtimes.protocol import Runtime


def lanes_of(runtime: Runtime) -> int:
    """Tell how many cores take their share of a batch each; ONNX Runtime has threads of its own."""
    alone = runtime.device.type != "cpu" or runtime.kind == "onnx"
    return 1 if alone else torch.get_num_threads()


def usual_batch_frames(device: torch.device) -> int:
    """Tell the most frames of one batch where nobody says: larger passes leave a core's caches."""
    return 256 if device.type == "cuda" else 16 * torch.get_num_threads()


def shares(count: int, lanes: int) -> list[slice]:
    """Part so many things in order among lanes, none with two more than another."""
    least, more = divmod(count, lanes)
    starts = [lane * least + min(lane, more) for lane in range(lanes + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]
