"""The use case of following a long video: pieces of it to windows, to scores, to spans.

Dimensions: N labels.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from model.episode import EncodedSupport, MatchScores
from model.fusion import TaskCalibration
from model.media.windows import WindowGrid
from model.timeline.segments import Segmenter, Span, WindowScores
from service.decoding.streams import OpenStream, Piece, VideoStreams
from service.engine.engine import Engine
from service.engine.window_work import Reel
from service.stores.errors import RevisionConflictError
from service.stores.records import TaskRecord
from service.tasks.allowance import Allowance
from service.tasks.arrivals import Arrivals
from service.tasks.quota.keeper import asked_of
from service.tasks.supports import Supports
from service.tasks.timeline.asked import TimelineOptions, TimelinePlan, plan_of
from service.tasks.timeline.errors import WindowTooLongError

UNKNOWN_S = 10.0  # charged at once of a video that is longer than its headers say
SLACK_S = 1.0  # by which they may be wrong


@dataclass(frozen=True, slots=True)
class ScoredWindow:
    """One window."""

    start_s: float
    end_s: float
    scores: WindowScores
    unknown: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """The video is open and its first windows can be looked at."""

    record: TaskRecord
    plan: TimelinePlan
    codec: str
    claimed_s: float | None  # by the video's headers


@dataclass(frozen=True, slots=True)
class Advanced:
    """Some more of the video was looked at.

    Args:
        reached_s: How far it is decoded.
        settled_s: Up to where spans are final.
        windows: New ones.
        spans: That have ended, and do not change any more.
    """

    reached_s: float
    settled_s: float
    windows: tuple[ScoredWindow, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The whole video was looked at."""

    duration_s: float
    windows: int
    warnings: tuple[str, ...]
    took_s: float


Event = Begun | Advanced | Ended


@dataclass(slots=True)
class _Followed:
    """One video on its way."""

    plan: TimelinePlan
    calibration: TaskCalibration
    allowance: Allowance
    reel: Reel
    segmenter: Segmenter
    windows: int = 0  # that are complete
    reached: int = -1  # the last instant whose picture is there
    begun: float = field(default_factory=time.monotonic)
    paid_s: float = 0.0  # that the tenant was charged

    async def pay(self, until_s: float) -> None:
        """Charge the tenant for the video up to an instant.

        Raises:
            RequestError: It may not ask for as much.
        """
        purse, paid_s, grid = self.allowance.purse, self.paid_s, self.plan.grid
        if purse is not None and until_s > paid_s + SLACK_S * (paid_s > 0):
            self.paid_s = max(until_s, paid_s + UNKNOWN_S) if paid_s else until_s
            frames = _pictures(grid, self.paid_s) - _pictures(grid, paid_s)
            await purse.charge(asked_of(self.paid_s - paid_s, frames))

    def complete(self, piece: Piece) -> range:
        """Return the windows that a piece completes: all their pictures, and time to their end."""
        grid, first = self.plan.grid, self.windows
        self.reached = piece.numbers[-1] if piece.numbers else self.reached
        inside = grid.count(piece.reached_s)
        while self.windows < inside and grid.last_of(self.windows) <= self.reached:
            self.windows += 1
        return range(first, self.windows)


class Follower:
    """Tells when a long video shows which label of a task.

    Args:
        arrivals: Knows tasks whose clips are not decoded yet.
        supports: Gives the task and its encoded supports.
        streams: Opens videos.
        engine: Scores windows.
    """

    def __init__(
        self, *, arrivals: Arrivals, supports: Supports, streams: VideoStreams, engine: Engine
    ) -> None:
        self.arrivals = arrivals
        self.supports = supports
        self.streams = streams
        self.engine = engine

    async def follow(
        self,
        task_id: str,
        video: int,
        options: TimelineOptions,
        wait_s: float,
        allowance: Allowance,
    ) -> AsyncGenerator[Event]:
        """Follow a video; first comes `Begun`, last `Ended`.

        Args:
            task_id: The task.
            video: Descriptor of the video's file, open for as long as this goes on.
            options: What the client sets.
            wait_s: How long to wait for a task that is getting ready.
            allowance: Its deadline bounds all of this.

        Raises:
            ClipError: The video cannot be used, or no further than it was.
            WindowTooLongError: No window fits into it.
            NotReadyError: The task is still getting ready; TaskFailedError: it never will be.
            ServerFullError: Too many videos are followed at once.
            DeadlineError: It took too long.
        """
        record, support = await self._task(task_id, wait_s, allowance)
        with self.supports.pinned(record):
            calibration = support.calibration
            threshold = record.threshold(calibration.threshold, self.engine.model.fingerprint)
            calibration = replace(calibration, threshold=threshold.value)
            frames = self.engine.model.frames
            plan = plan_of(options, record.clips, frames, calibration.threshold)
            segmenter = Segmenter(plan.grid, plan.rule)
            followed = _Followed(plan, calibration, allowance, Reel(support), segmenter)
            async with self.streams.open(video, plan.grid) as stream:
                await followed.pay(stream.claimed_s or UNKNOWN_S)
                yield Begun(record, plan, stream.codec, stream.claimed_s)
                async with aclosing(self._advance(stream, followed)) as events:
                    async for event in events:
                        yield event

    async def _task(
        self, task_id: str, wait_s: float, allowance: Allowance
    ) -> tuple[TaskRecord, EncodedSupport]:
        """Return the revision of a task that stands now, encoded."""
        while True:
            async with allowance.deadline.bounding("looking up the task"):
                record = await self.supports.record(task_id)
            if record.state != "decoded":
                async with allowance.deadline.bounding("waiting for the task"):
                    record = await self.arrivals.settled(record, wait_s)
            try:
                async with allowance.deadline.bounding("waiting for the task"):
                    return record, await self.supports.get(record, wait_s, allowance.deadline)
            except RevisionConflictError:  # changed meanwhile
                continue

    async def _advance(self, stream: OpenStream, followed: _Followed) -> AsyncGenerator[Event]:
        async with aclosing(stream.pieces()) as pieces:
            while True:
                async with followed.allowance.deadline.bounding("decoding"):
                    piece = await anext(pieces)
                await followed.pay(piece.reached_s)
                windows, spans = await self._score(piece, followed)
                if piece.end is None:
                    if windows:
                        settled_s = followed.segmenter.settled_s
                        yield Advanced(piece.reached_s, settled_s, tuple(windows), tuple(spans))
                    continue
                lasts_s, plan = piece.end.duration_s, followed.plan
                if not followed.windows:
                    raise _no_window(plan.grid, lasts_s)
                spans += followed.segmenter.finish(lasts_s)
                yield Advanced(lasts_s, lasts_s, tuple(windows), tuple(spans))
                warnings = (*plan.warnings, *piece.end.warnings)
                took_s = time.monotonic() - followed.begun
                yield Ended(lasts_s, followed.windows, warnings, took_s)
                return

    async def _score(
        self, piece: Piece, followed: _Followed
    ) -> tuple[list[ScoredWindow], list[Span]]:
        """Score the windows that a piece completes."""
        plan, allowance = followed.plan, followed.allowance
        complete = followed.complete(piece)
        if not piece.numbers and not complete:
            return [], []
        async with allowance.deadline.bounding("computing"):
            found = await self.engine.score_windows(
                followed.reel,
                piece.numbers,
                piece.frames_NHWC,
                [plan.grid.instants_of(window) for window in complete],
                plan.grid.instants_of(followed.windows)[0],
                tenant=allowance.tenant,
                deadline=allowance.deadline.at,
            )
        windows, spans = list[ScoredWindow](), list[Span]()
        for window, each in zip(complete, found, strict=True):
            scores = _scores_of(each, followed.calibration)
            start_s = plan.grid.start_s(window)
            unknown = scores.nearest < plan.rule.unknown_below
            windows.append(ScoredWindow(start_s, start_s + plan.grid.window_s, scores, unknown))
            spans += followed.segmenter.push(scores)
        return windows, spans


def _scores_of(scores: MatchScores, calibration: TaskCalibration) -> WindowScores:
    return WindowScores(calibration.probabilities(scores.logits_N), scores.nearest)


def _pictures(grid: WindowGrid, seconds: float) -> int:
    """Return how many pictures the windows look at within the first seconds of a video, at most."""
    windows = grid.count(seconds)
    return min(grid.frames * windows, grid.last_of(windows - 1) + 1) if windows else 0


def _no_window(grid: WindowGrid, duration_s: float) -> WindowTooLongError:
    return WindowTooLongError(
        f"Windows of {grid.window_s:.2f} s do not fit into a video of {duration_s:.2f} s; give a "
        "window_s below that, or classify the video as a clip."
    )
