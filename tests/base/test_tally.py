"""The tally: what is counted lands where it belongs, and a failure is no time."""

import pytest

from app.base import tally
from app.base.tally import METRICS, Counter, Histogram, Series


@pytest.fixture(autouse=True)
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics of these tests are on no table."""
    monkeypatch.setattr(tally, "METRICS", [])


def test_a_time_is_counted_up_to_its_bound() -> None:
    times = Histogram("trial_seconds", "trial", 0.1, 1, thing=()).of("a")
    for took_s in (0, 0.1, 0.10001, 1, 1.5, 100):
        times.observe(took_s)
    assert times.counts == [2, 2, 2]
    assert times.sum_s == pytest.approx(102.70001)


def test_each_label_has_its_own_times_and_keeps_them() -> None:
    histogram = Histogram("trial_seconds", "trial", 1, thing=())
    assert histogram.of("a") is histogram.of("a") is histogram.series["a",]
    assert histogram.of("a") is not histogram.of("b")
    assert isinstance(histogram.series, Series)


async def test_a_failure_is_counted_by_its_kind_and_is_no_time() -> None:
    failures = Counter("trial_failures_total", "trial", thing=(), error=())
    times = Histogram("trial_seconds", "trial", 1, failures=failures, thing=()).of("a")

    async def given(error: Exception | None) -> int:
        if error:
            raise error
        return 7

    assert await times.timed(given(None)) == 7
    for _ in range(2):
        with pytest.raises(KeyError):
            await times.timed(given(KeyError("x")))
    assert times.counts == [1, 0]
    assert failures.values == {("a", "KeyError"): 2}


def test_what_is_known_from_the_start_is_zero_from_the_start() -> None:
    counter = Counter("trial_total", "trial", direction=("over", "under"))
    counter.add("under", by=3)
    assert counter.values == {("over",): 0, ("under",): 3}
    assert Counter("plain_total", "trial").values == {(): 0}
    assert Counter("open_total", "trial", kind=()).values == {}


def test_names_say_what_they_are() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS) > 20
    for metric in METRICS:
        assert metric.name.startswith("torg_")
        assert metric.name.endswith("_total") is (metric.kind == "counter"), metric.name
        if isinstance(metric, Histogram):
            assert metric.name.endswith("_seconds")
            assert list(metric.bounds_s) == sorted(set(metric.bounds_s))
            assert 6 <= len(metric.bounds_s) <= 10, "few buckets: each is a line for each label"
