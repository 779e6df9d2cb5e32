"""Metrics as Prometheus reads them. The only file that knows prometheus_client, which prints and does not count."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric as Family

from app.base.tally import METRICS, Counter, Histogram, Metric, Reading, Times
from app.base.version import VERSION

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Page:
    """What one process shows: what it counts itself, what the kernel counts for it, and what it was told to add."""

    def __init__(self, process: str) -> None:
        self.info = (process, VERSION)
        self._kernel = ProcessCollector(registry=None)

    async def text(self, readings: Iterable[Reading]) -> bytes:
        """In a thread: thousands of lines are some 10 ms of work, for which no request should wait."""
        return await asyncio.to_thread(self._text, list(readings))

    def _text(self, readings: Sequence[Reading]) -> bytes:
        registry = CollectorRegistry()
        registry.register(self._kernel)
        registry.register(_Tally(readings))
        return generate_latest(registry)


class _Tally:
    """One scrape, as prometheus_client collects it."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings = readings

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            family = Family(metric.name.removesuffix("_total"), metric.meaning, metric.kind)
            for labels, value in self._values(metric):
                family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
            if isinstance(metric, Histogram):
                for times in list(metric.series.values()):
                    _add(family, metric, times)
            if family.samples:
                yield family

    def _values(self, metric: Metric) -> Iterator[tuple[tuple[str, ...], float]]:
        if isinstance(metric, Counter):
            yield from list(metric.values.items())  # in one step: the other thread goes on counting
        for reading in self.readings:
            if reading.metric is metric:
                yield reading.labels, reading.value


def _add(family: Family, metric: Histogram, times: Times) -> None:
    counts = list(times.counts)
    if not any(counts):
        return
    labels = dict(zip(metric.labels, times.labels, strict=True))
    bounds = [*(str(float(bound_s)) for bound_s in metric.bounds_s), "+Inf"]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        family.add_sample(f"{metric.name}_bucket", labels | {"le": bound}, count)
    family.add_sample(f"{metric.name}_sum", labels, times.sum_s)
    family.add_sample(f"{metric.name}_count", labels, sum(counts))
