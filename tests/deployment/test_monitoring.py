"""The rules of Prometheus and the dashboard of Grafana: they ask for what there is, and each alert has its page.

What there is, is what docs/metrics.md lists, which tests/integration/test_metrics.py holds against a scrape. Whether
the rules say the right thing is for promtool: ``make check-alerts``. That what they ask for moves when something goes
wrong is for tests/integration/test_alerting.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
#: Of Prometheus itself, for each target.
OWN = {"up": {"job", "instance"}}
#: What a scrape adds to each sample.
OF_THE_TARGET = {"job", "instance"}

_METRIC = re.compile(r"\b(?:grpc_server|modelcatalog|process|python)[a-zA-Z0-9_:]*")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


RULES = [
    rule
    for path in sorted((PROMETHEUS / "rules").glob("*.yaml"))
    for group in load(path)["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}


def there_is() -> dict[str, set[str]]:
    """Return the labels by the names that samples have, those of recording rules too."""
    page = (ROOT / "docs/metrics.md").read_text()
    found = {**OWN}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", page, re.MULTILINE):
        own = set(re.findall(r"`(\w+)`", labels)) | OF_THE_TARGET
        if kind == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            found[name] = own
    for rule in RULES:
        if "record" in rule:
            found[rule["record"]] = set().union(*(grouping(node) for node in nodes_of(rule["expr"]))) | {"job"}
    return found


def metrics_in(text: str) -> set[str]:
    """Return the names of metrics in a text."""
    return set(_METRIC.findall(text))


def nodes_of(query: str) -> list[promql_parser.Expr]:
    """Parse a query, of a panel too, as Prometheus does: names, arguments and types of functions are checked."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), nodes.append)
    return nodes


def grouping(node: promql_parser.Expr) -> set[str]:
    """Return the labels that an aggregation keeps apart; ``le`` ends in the histogram's quantile."""
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        assert node.modifier.type == promql_parser.AggModifierType.By
        return {*node.modifier.labels} - {"le"}
    return set()


def check_query(query: str) -> None:
    """Check that a query asks for metrics that there are, by labels that these have."""
    there = there_is()
    nodes = nodes_of(query)
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors, query
    labels = set()
    for selector in selectors:
        assert selector.name in there, query
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= there[selector.name], query
        labels |= there[selector.name]
    for node in nodes:
        assert grouping(node) <= labels, query


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    check_query(rule["expr"])


@pytest.mark.parametrize("query", ["rate(up)", "sum by (worker) (up)", 'up{code="OK"}', "down", "sum(up"])
def test_a_query_that_is_wrong_is_found(query: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        check_query(query)


def test_an_alert_has_a_page_a_place_in_the_list_and_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == ALERTS.keys()
    listed = (ROOT / "docs/alerts.md").read_text()
    tests = [test["name"] for path in (PROMETHEUS / "tests").glob("alerts*.yaml") for test in load(path)["tests"]]
    assert sorted(tests) == sorted(f"{name} {what}" for name in ALERTS for what in ("fires", "is quiet"))
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert f"| [{name}](runbooks/{name}.md) | {alert['labels']['severity']} |" in listed


def test_every_recording_rule_has_a_test() -> None:
    tests = load(PROMETHEUS / "tests/service-levels.yaml")["tests"]
    tested = {name for test in tests for each in test["promql_expr_test"] for name in metrics_in(each["expr"])}
    assert tested == {rule["record"] for rule in RULES if "record" in rule}


def test_pages_of_alerts_ask_for_what_there_is() -> None:
    for path in [*(ROOT / "docs/runbooks").glob("*.md"), ROOT / "docs/alerts.md"]:
        code = re.findall(r"`([^`\n]+)`", path.read_text())
        asked = {name for text in code for name in metrics_in(text) if "_" in name}
        whole = {name.removesuffix("_bucket") for name in there_is()}  # a histogram in words
        assert asked <= there_is().keys() | whole, path.name


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_panel_asks_for_what_there_is(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) >= 15
    for panel in panels:
        for target in panel["targets"]:
            check_query(target["expr"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_says_nothing_that_grafana_does_not_know(path: Path) -> None:
    """Its own types leave out what they do not know, in panels and queries too: a word that is misspelt is gone."""
    register_default_plugins()
    dashboard = json.loads(path.read_text())
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert kept_of(dashboard, known) == dashboard
    dashboard["panels"][1]["fieldConfig"]["defaults"]["unti"] = "s"
    assert kept_of(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))) != dashboard


def kept_of(value: Any, known: Any) -> Any:
    """Return what is left of a value, without the defaults that were filled in."""
    if isinstance(value, dict):
        return {key: kept_of(each, known[key]) for key, each in value.items() if key in known}
    if isinstance(value, list):
        assert len(value) == len(known)
        return [kept_of(*pair) for pair in zip(value, known, strict=True)]
    return known


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_lie_side_by_side(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_is_provisioned_where_compose_puts_it() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (provider,) = load(provisioning / "dashboards/modelcatalog.yaml")["providers"]
    compose = load(ROOT / "deploy/compose.yaml")["services"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
    (source,) = load(provisioning / "datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
