"""Training and evaluation with the trunk cache against the released way; last line is JSON.

    python -m tests.bench.bench_training --data INDEX.csv --weights FILE

Same episodes, same machine, one process a measurement, in turns: round by round every way is
measured once, and medians over rounds are told. Decoding is in all numbers.

Training. *Released*: temporal embedding at the input, so that gradients go through all blocks, no
cache, one episode a step, fp32; the clips of the next episodes are decoded by threads meanwhile, as
a data loader does. *Cache*: temporal embedding at the first adapted block, tokens out of a trunk
cache, which the process builds first. `afterwards` compares steps alone, once the cache is built;
`total` compares `--horizon` episodes, building included, here and in evaluation.

Evaluation. *Single*: each episode decodes its clips (by the same threads) and runs the whole
network. *Cache*: the scorer of `training.evaluate`, the cache built on the way. Adapters hold
noise, so that nothing counts as untrained. *Single* is measured on the first `--single-episodes` of
the same list, where both must agree, and told for all of them.

Peak memory is that of the whole process, with libraries and the pages of a mapped cache.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from model.adapters.bottleneck import Bottleneck
from model.recognizer import Recognizer
from tests.episodes import score_episode
from training.data.datasets import LabelledClip, open_dataset
from training.data.episodes import Episode, EpisodePlan, EpisodeSampler
from training.evaluation.scoring import EpisodeScorer
from training.features.clip_views import read_frames
from training.features.tokens import TokenSource
from training.features.trunk_cache import open_trunk_cache
from training.meta.choice import MethodChoice
from training.meta.learner import Learner
from training.meta.methods import open_method
from training.meta.processes import half_precision
from training.meta.recipe import FitRecipe
from training.synthetic.order_set import OrderSet, write_order_set

WARM_UP = 2  # steps or episodes that are not counted
AHEAD = 2  # episodes whose clips are decoded while another is computed
WAYS, SHOTS = 5, 1
Task = Literal["train", "evaluate"]


@dataclass(frozen=True, slots=True)
class Way:
    """One thing to measure; `released` and `single` are what the cache is compared with."""

    task: Task
    blocks: int  # adapted; 0 is the frozen backbone
    cache: bool
    half: bool  # bfloat16

    @property
    def name(self) -> str:
        """How tables call it."""
        if self.cache:
            return "cache"
        return "released" if self.task == "train" else "single"

    @property
    def precision(self) -> str:
        """The precision it computes in."""
        return "bf16" if self.half else "fp32"


class DecodedAhead:
    """A token source without cache: threads decode the next episodes, the trunk runs when asked.

    Args:
        recognizer: Whose trunk.
        clips: The set.
        half: Whether to compute in bfloat16.
        wanted: The clips of every request to come, in order.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        clips: Sequence[LabelledClip],
        wanted: Iterable[Sequence[int]],
        *,
        half: bool,
    ) -> None:
        self.recognizer, self.clips, self.half = recognizer, clips, half
        self._wanted = iter(wanted)
        self._pool = ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) - 1))
        self._waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()

    def tokens(self, clips: Sequence[int], draws: Sequence[int] | None = None) -> Tensor:
        """Return tokens of the next request [B, T, L, D], with a gradient where there is one."""
        assert draws is None
        while len(self._waiting) <= AHEAD and (wanted := next(self._wanted, None)) is not None:
            self._waiting.append([self._pool.submit(self._read, clip) for clip in wanted])
        views_BTHWC = np.stack([view.result() for view in self._waiting.popleft()])
        assert len(views_BTHWC) == len(clips)
        device = self.recognizer.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.half):
            return self.recognizer.trunk(views_BTHWC)

    def _read(self, clip: int) -> NDArray[np.uint8]:
        frames, size = self.recognizer.config.frames, self.recognizer.size
        return read_frames(self.clips[clip], frames=frames, size=size)


def measure(way: Way, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure one way in this process."""
    recognizer = build(way, options)
    split = options.train_split if way.task == "train" else options.test_split
    clips = open_dataset(options.data).split(split)
    queries = options.train_queries if way.task == "train" else options.queries
    sampler = EpisodeSampler(clips, EpisodePlan(WAYS, SHOTS, queries), seed=0)
    run = train if way.task == "train" else evaluate
    found = run(way, options, recognizer, clips, sampler, folder)
    return {**found, "peak_mib": round(peak_mib()), "device_peak_mib": device_peak_mib()}


def build(way: Way, options: argparse.Namespace) -> Recognizer:
    """Build the method, the same in every process."""
    torch.manual_seed(0)
    choice = MethodChoice(
        preset="task_adapter" if way.blocks else "frozen",
        backbone=options.backbone,
        backbone_weights=options.weights,
        blocks=way.blocks or None,
        query_context="support" if way.blocks else None,
        at_input=way.task == "train" and not way.cache,
    )
    recognizer = open_method(choice, "bench").to(options.device)
    if way.task == "evaluate":
        fill_with_noise(recognizer)
    return recognizer


def fill_with_noise(recognizer: Recognizer) -> None:
    """Make adapters of a trained method's kind: none of them is the zero function."""
    for module in recognizer.modules():
        if isinstance(module, Bottleneck):
            nn.init.normal_(module.up.weight, std=0.02)
            nn.init.normal_(module.up.bias, std=0.02)


def train(
    way: Way,
    options: argparse.Namespace,
    recognizer: Recognizer,
    clips: Sequence[LabelledClip],
    sampler: EpisodeSampler,
    folder: Path,
) -> dict[str, Any]:
    """Time steps of one episode each."""
    steps = WARM_UP + options.steps
    start = time.perf_counter()
    source: TokenSource
    if way.cache:
        source = open_trunk_cache(folder, recognizer, clips, draws=0, half=way.half, tell=quiet)
    else:
        episodes = (sampler.draw(number) for number in range(steps))
        source = DecodedAhead(recognizer, clips, map(used, episodes), half=way.half)
    prepared_s = time.perf_counter() - start
    recipe = FitRecipe(
        episodes=options.horizon, per_step=1, shots=(SHOTS, SHOTS), draws=0, dropout=0.0
    )
    learner = Learner(recognizer, recipe, sampler, source, half=way.half)
    losses = [learner.step() for _ in range(WARM_UP)]
    synchronize(options.device)
    start = time.perf_counter()
    losses += [learner.step() for _ in range(options.steps)]
    synchronize(options.device)
    per_episode_s = (time.perf_counter() - start) / options.steps
    return {
        "prepared_s": prepared_s if way.cache else 0.0,
        "episode_s": per_episode_s,
        "episodes": options.steps,
        "first_loss": losses[0],  # of untrained adapters: the same for every way
    }


def evaluate(
    way: Way,
    options: argparse.Namespace,
    recognizer: Recognizer,
    clips: Sequence[LabelledClip],
    sampler: EpisodeSampler,
    folder: Path,
) -> dict[str, Any]:
    """Time answers to episodes."""
    episodes = [sampler.draw(number) for number in range(options.episodes)]
    shared = episodes[: options.single_episodes]
    if way.cache:
        start = time.perf_counter()
        cache = open_trunk_cache(folder, recognizer, clips, draws=0, half=way.half, tell=quiet)
        prepared_s = time.perf_counter() - start
        scorer = EpisodeScorer(recognizer, cache, len(clips), half=way.half)
        answers = scorer.answers(episodes)
        total_s, counted = time.perf_counter() - start, len(episodes)
        answers = answers[: len(shared)]
    else:
        warm, prepared_s = episodes[:WARM_UP], 0.0
        wanted = map(used, [*warm, *shared])
        source = DecodedAhead(recognizer, clips, wanted, half=way.half)
        for episode in warm:
            answer(recognizer, source, episode, half=way.half)
        start = time.perf_counter()
        answers = [answer(recognizer, source, episode, half=way.half) for episode in shared]
        total_s, counted = time.perf_counter() - start, len(shared)
    return {
        "prepared_s": prepared_s,
        "episode_s": (total_s - prepared_s) / counted,
        "episodes": counted,
        "answers": [n for of_episode in answers for n in of_episode.tolist()],
    }


@torch.inference_mode()
def answer(recognizer: Recognizer, source: DecodedAhead, episode: Episode, *, half: bool) -> Tensor:
    """Answer one episode with the whole network."""
    tokens_BTLD = source.tokens(used(episode))
    support, query = tokens_BTLD.split([len(episode.support), len(episode.query)])
    with torch.autocast(recognizer.device.type, torch.bfloat16, enabled=half):
        scores = score_episode(recognizer, support, episode.support_classes, query, None)
    return scores.logits_QN.argmax(dim=1).cpu()


def used(episode: Episode) -> tuple[int, ...]:
    """Return the clips of an episode, supports first."""
    return (*episode.support, *episode.query)


def quiet(line: str) -> None:
    """Say nothing."""


def synchronize(device: str) -> None:
    """Wait for what a device has in hand."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kibibytes on Linux


def device_peak_mib() -> int | None:
    """Return the most memory of tensors on a GPU, where there is one."""
    return round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() else None


def ways(options: argparse.Namespace) -> list[Way]:
    """Return all that is measured; what is compared stands side by side."""
    halves = [half_precision(name, options.device.partition(":")[0]) for name in options.precision]
    layers: dict[Task, tuple[int, ...]] = {
        "train": tuple(options.blocks),
        "evaluate": (*options.blocks, 0),
    }
    return [
        Way(task, blocks, cache, half)
        for task in options.tasks
        for blocks in layers[task]
        for half in halves
        for cache in (False, True)
    ]


def in_a_process(way: Way, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in a process of its own, whose peak of memory is its own too."""
    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }
    command = [sys.executable, "-m", "tests.bench.bench_training"]
    task = json.dumps({"way": asdict(way), "options": given})
    done = subprocess.run([*command, "--worker", task], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(task: str) -> dict[str, Any]:
    """Do what `in_a_process` asks for."""
    read = json.loads(task)
    options = argparse.Namespace(**read["options"])
    options.data, options.weights = Path(options.data), Path(options.weights)
    with tempfile.TemporaryDirectory(prefix="kshot-bench-cache-") as folder:
        return measure(Way(**read["way"]), options, Path(folder) / "cache")


def summary(way: Way, found: Sequence[dict[str, Any]], horizon: int) -> dict[str, Any]:
    """Return one row of the table: medians over rounds."""
    prepared, episode = (
        statistics.median(one[name] for one in found) for name in ("prepared_s", "episode_s")
    )
    return {
        **asdict(way),
        "name": way.name,
        "precision": way.precision,
        "prepared_s": round(prepared, 2),
        "episode_ms": round(1e3 * episode, 2),
        "episode_ms_rounds": [round(1e3 * one["episode_s"], 2) for one in found],
        "measured_episodes": found[0]["episodes"],
        "episodes": horizon,
        "total_s": round(prepared + horizon * episode, 1),
        "peak_mib": max(one["peak_mib"] for one in found),
        "device_peak_mib": found[0]["device_peak_mib"],
        "first_loss": found[0].get("first_loss"),
    }


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times faster the cache is than each way it is compared with."""
    found = []
    for fast in (row for row in rows if row["cache"]):
        for slow in rows:
            same = (slow["task"], slow["blocks"]) == (fast["task"], fast["blocks"])
            if same and not slow["cache"]:
                found.append(
                    {
                        "task": fast["task"],
                        "blocks": fast["blocks"],
                        "cache": fast["precision"],
                        slow["name"]: slow["precision"],
                        "afterwards": round(slow["episode_ms"] / fast["episode_ms"], 2),
                        "total": round(slow["total_s"] / fast["total_s"], 2),
                    }
                )
    return found


def agreements(found: dict[Way, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the share of equal answers of both ways to evaluate, on the episodes of both."""
    shares = []
    for way in (way for way in found if way.task == "evaluate" and way.cache):
        other = Way(way.task, way.blocks, cache=False, half=way.half)
        pairs = list(zip(found[way][0]["answers"], found[other][0]["answers"], strict=True))
        share = sum(one == two for one, two in pairs) / len(pairs)
        shares.append(
            {
                "blocks": way.blocks,
                "precision": way.precision,
                "answers": len(pairs),
                "equal": round(share, 4),
            }
        )
    return shares


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out for people."""
    columns = ["task", "blocks", "name", "precision", "prepared_s", "episode_ms", "total_s"]
    columns += ["episodes", "peak_mib"]
    lines = [columns, *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Name what the numbers were made with."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, help="an index.csv; default: synthetic clips, made in a temp folder")
    add("--train-split", default="train", help="with 5 labels or more")
    add("--test-split", default="test")
    add("--backbone", default="timm:vit_tiny_patch16_224")
    add("--weights", type=Path, help="of the backbone, a file; default: random ones")
    add("--blocks", type=int, nargs="+", default=[6, 2], help="adapted")
    add("--tasks", nargs="+", choices=get_args(Task), default=get_args(Task))
    add("--precision", nargs="+", default=["fp32", "bf16"])
    add("--rounds", type=int, default=3)
    add("--steps", type=int, default=20, help="timed training steps a round")
    add("--horizon", type=int, default=2000, help="episodes of the totals")
    add("--train-queries", type=int, default=1, help="of each class")
    add("--episodes", type=int, default=2000, help="evaluated with the cache")
    add("--single-episodes", type=int, default=20, help="evaluated one at a time, a round")
    add("--queries", type=int, default=1, help="of each class, in evaluation")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("rounds", "steps", "episodes", "single_episodes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; give 1 or more.")
    if options.single_episodes > options.episodes:
        parser.error("--single-episodes are the first of --episodes; give no more than those.")
    return options


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make what is not given, measure all ways in turns, and sum up."""
    if options.data is None:
        options.data = folder / "clips" / "index.csv"
        write_order_set(options.data.parent, OrderSet(families=(2, 1, 1), clips=8))
    if options.weights is None:
        options.weights = folder / "random.safetensors"
        torch.manual_seed(0)
        vit = timm.create_model(options.backbone.partition(":")[2], pretrained=False)
        save_file(vit.state_dict(), options.weights)
    found: dict[Way, list[dict[str, Any]]] = {way: [] for way in ways(options)}
    for turn in range(options.rounds):
        for way in found:
            print(f"round {turn + 1}: {way}", file=sys.stderr)
            found[way].append(in_a_process(way, options))
    rows = [summary(way, results, options.horizon) for way, results in found.items()]
    return {"rows": rows, "ratios": ratios(rows), "agreement": agreements(found)}


def main() -> None:
    """Measure, print tables, and the same as JSON."""
    options = parse()
    if options.worker:
        print(json.dumps(work(options.worker)))
        return
    sizes = {
        name: getattr(options, name)
        for name in ("backbone", "rounds", "steps", "train_queries", "queries", "single_episodes")
    }
    sizes |= {"data": str(options.data.parent.name) if options.data else "synthetic"}
    sizes |= {"weights": options.weights.name if options.weights else "random"}
    with tempfile.TemporaryDirectory(prefix="kshot-bench-") as folder:
        found = compare(options, Path(folder))
    print(table(found["rows"]))
    for ratio in found["ratios"]:
        print(", ".join(f"{name} {value}" for name, value in ratio.items()))
    for share in found["agreement"]:
        print(f"blocks {share['blocks']}: {share['equal']:.1%} of {share['answers']} answers equal")
    print(json.dumps({"bench": "training", **sizes, **found, "machine": machine(options)}))


if __name__ == "__main__":
    main()
