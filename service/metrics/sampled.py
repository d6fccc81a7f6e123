"""What is read off the running service when Prometheus asks: queues, caches, memory, versions."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import av
import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.container import Service
from service.tasks.allowance import Ledger


class Sampled(Collector):
    """The state of a service.

    Args:
        current: Tells what answers new tasks now.
        ledger: What requests hold now.
    """

    def __init__(self, current: Callable[[], Service], ledger: Ledger) -> None:
        self.current = current
        self.ledger = ledger

    @property
    def service(self) -> Service:
        """What answers new tasks now."""
        return self.current()

    def collect(self) -> Iterator[Metric]:
        """Read the state; nothing is asked of a store or of the device."""
        yield from self._requests()
        yield from self._device()
        yield from self._supports()
        yield from self._versions()

    def _requests(self) -> Iterator[Metric]:
        held = self.ledger.held
        in_flight = self.service.meters.in_flight
        yield gauge("kshot_requests_in_flight", "Requests that are being answered.", in_flight)
        yield gauge("kshot_upload_bytes_in_flight", "Bytes of the bodies at hand.", held.bytes)
        yield gauge("kshot_frames_in_flight", "Frames that admitted requests bring.", held.frames)
        pool = self.service.pool
        running = {"alive": pool.alive, "wanted": pool.workers}
        yield gauges("kshot_decoders", "Decoder processes.", "state", running)
        text = "Requests that were more than their tenant's quota."
        yield counters("kshot_quota_refused", text, "quota", self.service.keeper.refused)
        text = "Labels that a language model was asked about."
        yield counters("kshot_llm_calls", text, "outcome", self.service.texts.outcomes)

    def _device(self) -> Iterator[Metric]:
        engine = self.service.engine
        waiting = engine.batcher.waiting()
        frames = {kind: each[0] for kind, each in waiting.items()}
        oldest = {kind: each[1] for kind, each in waiting.items()}
        yield gauges("kshot_queue_frames", "Frames that wait for the device.", "class", frames)
        text = "How long the oldest work has waited for the device."
        yield gauges("kshot_queue_oldest_seconds", text, "class", oldest)
        text = "Works that were not done."
        yield counters("kshot_dropped", text, "reason", engine.dropped)
        text = "Batches of queries that went to the device, by what closed them."
        yield counters("kshot_dispatch", text, "reason", engine.closings)
        text = "Seconds since the device last showed that it works."
        yield gauge("kshot_device_silent_seconds", text, engine.silent_s)
        text = "Works that the device had no memory for."
        yield counter("kshot_gpu_oom", text, engine.memory_failures)
        if engine.model.device.startswith("cuda"):
            held = {
                "allocated": torch.cuda.memory_allocated(engine.model.device),
                "reserved": torch.cuda.memory_reserved(engine.model.device),
            }
            yield gauges("kshot_gpu_memory_bytes", "Memory that PyTorch holds.", "kind", held)

    def _supports(self) -> Iterator[Metric]:
        cache = self.service.tasks.supports.cache
        yield gauge("kshot_support_cache_bytes", "Of encoded supports at hand.", cache.bytes)
        yield gauge("kshot_support_cache_tasks", "Tasks with encoded supports.", len(cache))
        for event in ("hits", "misses", "evictions"):
            text = f"Encoded supports: {event}."
            yield counter(f"kshot_support_cache_{event}", text, cache.counts[event])
        getting = len(self.service.tasks.supports.preparations)
        yield gauge("kshot_tasks_in_preparation", "Tasks that are getting ready here.", getting)

    def _versions(self) -> Iterator[Metric]:
        model = self.service.engine.model
        info = InfoMetricFamily("kshot_build", "What runs here.")
        about = {
            "version": importlib.metadata.version("kshot"),
            "model": model.name,
            "model_revision": model.fingerprint[:12],
            "torch": torch.__version__,
            "ffmpeg": av.ffmpeg_version_info,
        }
        info.add_metric([], about)
        yield info


def gauge(name: str, text: str, value: float) -> Metric:
    """Make a gauge without labels."""
    return GaugeMetricFamily(name, text, value)


def counter(name: str, text: str, value: float) -> Metric:
    """Make a counter without labels."""
    return CounterMetricFamily(name, text, value)


def gauges(name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    """Make a gauge for each value of a label."""
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def counters(name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    """Make a counter for each value of a label."""
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
