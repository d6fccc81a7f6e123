"""Clients that change one task at a time with others, and what must hold of their answers."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.serving import moving_clip, query_files

CLIPS = [moving_clip(seed, frames=9) for seed in range(100, 104)]
QUERY = moving_clip(50, frames=9)
LOST_RACES = {404, 409, 412, 422}  # somebody removed it first, or the task is full
LONGEST_S = 60.0
Labels = Mapping[str, frozenset[str]]  # ids of clips by label


def labels_of(task: Mapping[str, Any]) -> Labels:
    """Read the clips of each label off a task."""
    found: dict[str, set[str]] = {label["label"]: set() for label in task["labels"]}
    for clip in task["clips"]:
        found[clip["label"]].add(clip["clip_id"])
    return {label: frozenset(clips) for label, clips in found.items()}


@dataclass(frozen=True)
class Acknowledged:
    """One change that was answered with success."""

    revision: int
    after: Labels
    apply: Callable[[Labels], Labels]


@dataclass
class Story:
    """What clients of one task were told, from any thread."""

    changes: list[Acknowledged] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)


class Writer(threading.Thread):
    """Changes one task until it is told to stop, or the service is gone.

    Args:
        client: Of a replica.
        task_id: The task.
        name: Of the writer; its labels begin so.
        story: Where it notes what it was told.
        stop: Set when it is enough.
    """

    def __init__(
        self, client: httpx.Client, task_id: str, name: str, story: Story, stop: threading.Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.client = client
        self.path = f"/tasks/{task_id}"
        self.story = story
        self.stop = stop
        self.random = random.Random(name)
        self.mine: list[str] = []  # labels of its own
        self.clips: list[str] = []  # clips that it added to a shared label

    def run(self) -> None:
        """Make one change after the other."""
        while not self.stop.is_set():
            try:
                self.random.choice([self.add, self.add, self.remove, self.put, self.rename])()
            except httpx.TransportError:
                return

    def add(self) -> None:
        """Add a clip to the label that all share."""
        files = query_files(self.random.choice(CLIPS))
        answer = self.client.post(f"{self.path}/labels/wave/clips", files=files)
        if (task := self._told(answer)) is not None:
            (new,) = task["change"]["added_clips"]
            self.clips.append(new)
            self._note(task, lambda old: {**old, "wave": old["wave"] | {new}})

    def remove(self) -> None:
        """Remove a clip or a label of its own."""
        if self.clips:
            gone = self.clips.pop()
            task = self._told(self.client.delete(f"{self.path}/clips/{gone}"))
            if task is not None:
                self._note(task, lambda old: {**old, "wave": old["wave"] - {gone}})
        elif self.mine:
            label = self.mine.pop()
            task = self._told(self.client.delete(f"{self.path}/labels/{label}"))
            if task is not None:
                self._note(task, lambda old: {k: v for k, v in old.items() if k != label})

    def put(self) -> None:
        """Add a label of its own."""
        label = f"{self.name} {self.random.randrange(10**6)}"
        files = query_files(self.random.choice(CLIPS))
        task = self._told(self.client.put(f"{self.path}/labels/{label}", files=files))
        if task is not None:
            self.mine.append(label)
            new = frozenset(task["change"]["added_clips"])
            self._note(task, lambda old: {**old, label: new})

    def rename(self) -> None:
        """Call a label of its own otherwise."""
        if self.mine:
            old_name, name = self.mine[-1], f"{self.name} {self.random.randrange(10**6)}"
            body = {"label": name}
            task = self._told(self.client.patch(f"{self.path}/labels/{old_name}", json=body))
            if task is not None:
                self.mine[-1] = name
                self._note(
                    task,
                    lambda old: {(name if k == old_name else k): v for k, v in old.items()},
                )

    def _told(self, answer: httpx.Response) -> dict[str, Any] | None:
        if answer.status_code in (200, 202):
            return dict(answer.json())
        if answer.status_code not in LOST_RACES:
            self.story.faults.append(answer.text)
        return None

    def _note(self, task: dict[str, Any], apply: Callable[[Labels], Labels]) -> None:
        self.story.encoded.append(task["change"]["encoded_clips"])
        self.story.changes.append(Acknowledged(task["revision"], labels_of(task), apply))


class Reader(threading.Thread):
    """Classifies a clip again and again."""

    def __init__(
        self, client: httpx.Client, task_id: str, story: Story, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.path = f"/tasks/{task_id}/classify"
        self.story = story
        self.stop = stop

    def run(self) -> None:
        """Ask until it is enough."""
        while not self.stop.is_set():
            try:
                answer = self.client.post(self.path, files=query_files(QUERY))
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                self.story.answers.append(answer.json())
            elif answer.status_code not in (409, 503):  # getting ready, full
                self.story.faults.append(answer.text)


def change_for(
    clients: Sequence[httpx.Client],
    task_id: str,
    *,
    writers: int,
    readers: int,
    seconds: float,
    least: int = 0,
) -> Story:
    """Let writers and readers loose on one task, spread over replicas.

    They go on for so many seconds, and on a busy machine until so many changes and answers came.
    """
    for client in clients:
        # FastAPI builds routes when they are first looked through, under a filter of warnings that
        # all threads share: two services of one process must not do that at once.
        assert client.get("/nowhere").status_code == 404
    story, stop = Story(), threading.Event()
    threads: list[threading.Thread] = [
        Writer(clients[k % len(clients)], task_id, f"wave {k}", story, stop) for k in range(writers)
    ]
    threads += [Reader(clients[k % len(clients)], task_id, story, stop) for k in range(readers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    until = time.monotonic() + LONGEST_S
    while min(len(story.changes), len(story.answers)) < least and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return story


def check(story: Story, first: Mapping[str, Any], last: Mapping[str, Any]) -> None:
    """Assert that every acknowledged change is there, without gaps, and no answer mixes two.

    Args:
        story: What clients were told; every change was answered.
        first: The task before.
        last: The task after.
    """
    assert not story.faults, story.faults[:3]
    states: dict[int, Labels] = {first["revision"]: labels_of(first)}
    for change in story.changes:
        assert change.revision not in states, "two changes have one revision"
        states[change.revision] = change.after
    assert sorted(states) == [*range(first["revision"], last["revision"] + 1)]
    assert states[last["revision"]] == labels_of(last)
    for change in story.changes:
        assert change.apply(states[change.revision - 1]) == change.after
    for answer in story.answers:
        said = {ranked["label"] for ranked in answer["results"][0]["ranking"]}
        assert said == states[answer["task_revision"]].keys(), "an answer mixes revisions"
