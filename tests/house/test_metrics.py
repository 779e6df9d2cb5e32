"""What is written about the metrics is so: the page lists all and only them, dashboard and alerts ask for none else."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client import ProcessCollector

from app.base.tally import METRICS
from tests.house.tree import text

# What stands in an expression beside metrics and their labels: functions, operators, and what a scraper adds.
ADDED = {"instance", "job", "le"}
SELECTED = re.compile(r"\b((?:torg|process)_[a-z_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
MATCHED = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


def known() -> dict[str, tuple[str, set[str]]]:
    """Each metric by name: its type and its labels."""
    own = {metric.name: (metric.kind, set(metric.labels)) for metric in METRICS}
    kernels = {
        sample.name: (family.type, set(sample.labels))
        for family in ProcessCollector(registry=None).collect()
        for sample in family.samples
    }
    return own | kernels


def sampled() -> dict[str, set[str]]:
    """What a query may ask for, with its labels."""
    found = {}
    for name, (kind, labels) in known().items():
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            found[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard and the alerts, with where it stands."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text("docs/grafana/torg.json"))
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = msgspec.yaml.decode(text("docs/alerts.yml"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def faults(expression: str) -> list[str]:
    """What this query asks for that nobody tells."""
    samples = sampled()
    names = [(found[1], found[2] or "") for found in SELECTED.finditer(expression)]
    wrong = [name for name, _ in names if name not in samples]
    labels = set().union(*(samples.get(name, set()) for name, _ in names)) | ADDED
    for name, matchers in names:
        wrong += [
            f"{name}: {label}" for label, _, _ in MATCHED.findall(matchers) if label not in samples.get(name, set())
        ]
    for group in GROUPED.findall(expression):
        wrong += [label for label in re.findall(r"\w+", group) if label not in labels]
    if not names or any(expression.count(a) != expression.count(b) for a, b in ("()", "{}", "[]")):
        wrong.append(f"{expression} is no query of ours")
    return wrong


def test_the_page_lists_all_metrics_with_type_and_labels_and_no_other() -> None:
    rows = re.findall(r"(?m)^\| `([a-z_]+)` \| (\w+) \|([^|]*)\| ([^|]+) \|([^|]*)\|$", text("docs/metrics.md"))
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, *_ in rows}
    assert len(told) == len(rows)
    assert told == known()


def test_the_page_names_nothing_that_is_not_there() -> None:
    spelt = set(re.findall(r"\b(?:torg|process)_[a-z_]*[a-z]\b", text("docs/metrics.md")))
    assert spelt <= known().keys()


@pytest.mark.parametrize(("where", "expression"), [*expressions()])
def test_a_query_asks_for_what_is_told(where: str, expression: str) -> None:
    assert faults(expression) == []


@pytest.mark.parametrize(
    "expression",
    [
        "max(torg_no_such_thing)", "rate(torg_request_seconds[5m])", "torg_dead_letters_count", 'torg_up{kind="x"}',
        "sum by (kind) (torg_up)", "max(torg_dead_letters", "1 + 1",
    ],
)  # fmt: skip
def test_a_wrong_query_would_be_seen(expression: str) -> None:
    assert faults(expression)


def test_each_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert re.fullmatch(r"Torg[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_what_must_wake_somebody_does() -> None:
    asked = " ".join(rule["expr"] for rule in rules())
    for name in (
        "torg_outbox_oldest_seconds", "torg_dead_letters", "torg_circuit", "torg_undelivered_oldest_seconds",
        "torg_stock_drift_units_total", 'status="5xx"', "torg_payments_to_poll_oldest_seconds", 'process="worker"',
    ):  # fmt: skip
        assert name in asked


def test_the_dashboard_is_whole() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert {"Requests", "Webhooks", "Jobs", "Outbox", "Dead letters", "Circuits", "Stock drift", "Lags"} <= set(rows)
    (variable,) = board["templating"]["list"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == f"${{{variable['name']}}}"
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in target["expr"] or label in ADDED, (panel["title"], label)
