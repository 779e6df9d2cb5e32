"""The page of metrics: what is counted is what a scraper reads, and nothing that was counted can break the format."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.base import tally
from app.base.tally import METRICS, Counter, Gauge, Histogram, Metric, Series
from app.infra.metrics import Page

NASTY = 'a "quoted" \\ back\nslash {x="y"} ⚡'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was counted yet, and what these tests count is gone afterwards."""
    for metric in METRICS:
        if isinstance(metric, Counter):
            monkeypatch.setattr(metric, "values", dict.fromkeys(metric.known, 0))
        if isinstance(metric, Histogram):
            monkeypatch.setattr(metric, "series", Series(metric))


def read(text: bytes) -> Iterator[tuple[str, str, dict[str, str], float]]:
    """Each sample with its metric's type."""
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            yield sample.name, family.type, sample.labels, sample.value


async def test_a_histogram_adds_up() -> None:
    for took_s in (0.0001, 0.002, 0.002, 7):
        tally.SCRIPTS.of("stock/reserve").observe(took_s)
    found = [(name, labels, value) for name, _, labels, value in read(await Page("web").text([])) if "script" in name]
    bounds = [*(str(float(bound_s)) for bound_s in tally.SCRIPTS.bounds_s), "+Inf"]
    assert [labels.pop("le") for name, labels, _ in found if name.endswith("_bucket")] == bounds
    buckets = [value for name, _, value in found if name == "torg_script_seconds_bucket"]
    assert (buckets[0], buckets[-2:], buckets) == (1, [3, 4], sorted(buckets))
    rest = {name: value for name, _, value in found[len(buckets) :]}
    assert rest == {"torg_script_seconds_sum": pytest.approx(7.0041), "torg_script_seconds_count": 4}
    assert all(labels == {"script": "stock/reserve"} for _, labels, _ in found)


async def test_what_never_happened_is_not_shown_unless_it_is_known() -> None:
    tally.STATEMENTS.of("orders/get_order")
    names = {name for name, *_ in read(await Page("web").text([]))}
    torg = {name for name in names if name.startswith("torg_")}
    sent = {"torg_telegram_messages_total", "torg_whatsapp_messages_total", "torg_replies_total"}
    chats = {"torg_chat_batches_total", "torg_chat_runs_given_up_total"}
    assert torg == {"torg_relay_found_total", *sent, *chats, "torg_stock_drift_units_total"}


async def test_a_label_cannot_break_the_format() -> None:
    tally.SWEEPS.add(NASTY, "done")
    tally.JOB_SECONDS.of(NASTY).observe(1)
    text = await Page("web").text([tally.DEAD.reading(2, NASTY)])
    told = {name for name, _, labels, _ in read(text) if NASTY in labels.values()}
    assert told >= {"torg_sweeps_total", "torg_job_seconds_count", "torg_dead_letters"}
    assert all(line.startswith(("torg_", "process_", "# ")) for line in text.decode().splitlines())


async def test_every_metric_can_be_shown_with_its_type_and_labels() -> None:
    readings = []
    for metric in METRICS:
        values = [f"some {label}" for label in metric.labels]
        match metric:
            case Counter():
                metric.add(*values)
            case Histogram():
                metric.of(*values).observe(0.01)
            case Gauge():
                readings.append(metric.reading(1, *values))
    shown: dict[str, tuple[str, set[str]]] = {}
    for name, kind, labels, _ in read(await Page("web").text(readings)):
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") if kind == "histogram" else name
        before: Any = shown.get(base, (kind, set()))
        shown[base] = (kind, before[1] | (labels.keys() - {"le"}))
    assert {name: of for name, of in shown.items() if not name.startswith("process_")} == {
        metric.name: (metric.kind, set(metric.labels)) for metric in METRICS
    }


async def test_a_reading_with_the_wrong_labels_is_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        await Page("web").text([Metric.reading(tally.DEAD, 1, "tell", "extra")])
