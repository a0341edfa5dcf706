"""The metrics of a store for other programs: as JSON, and as OpenMetrics text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from proxystore_hpc.store.metrics import StoreMetrics, TimeStats

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""What an HTTP server says of the text."""


def as_json(metrics: StoreMetrics, *, objects: bool = False, indent: int | None = None) -> str:
    """Everything that was measured as a JSON document.

    It has `doors` (operations, bytes, seconds), `times` (in milliseconds) and `counters`, each by
    name.

    Args:
        metrics: `store.metrics`.
        objects: List what is known of each key, too, which is named by its `repr`.
        indent: As for `json.dumps`.
    """
    document: dict[str, Any] = {
        "doors": {name: stats._asdict() for name, stats in metrics.doors.items()},
        "times": _plain_times(metrics.aggregate_times()),
        "counters": metrics.aggregate_counters(),
    }
    if objects:
        document["objects"] = [
            {
                "key": repr(key),
                "attributes": known.attributes,
                "counters": known.counters,
                "times": _plain_times(known.times),
            }
            for key, known in metrics.items()
        ]
    return json.dumps(document, indent=indent, default=repr)


def as_openmetrics(metrics: StoreMetrics, *, labels: Mapping[str, str] | None = None) -> str:
    """What was measured, over all objects, in the text format that Prometheus and others read.

    Args:
        metrics: `store.metrics`.
        labels: Labels that all samples get, such as `{"store": store.name}`.
    """
    given = dict(labels or {})
    lines: list[str] = []

    def family(name: str, kind: str, unit: str, text: str, samples: Iterable[_Sample]) -> None:
        lines.append(f"# TYPE {name} {kind}")
        if unit:
            lines.append(f"# UNIT {name} {unit}")
        lines.append(f"# HELP {name} {text}")
        for suffix, own, value in samples:
            lines.append(f"{name}{suffix}{_braced({**given, **own})} {_number(value)}")

    doors = sorted(metrics.doors.items())
    times = sorted(metrics.aggregate_times().items())
    family(
        "proxystore_hpc_transfers",
        "counter",
        "",
        "Transfers through a door.",
        [("_total", {"door": door}, stats.operations) for door, stats in doors],
    )
    family(
        "proxystore_hpc_transfer_bytes",
        "counter",
        "bytes",
        "Bytes transferred through a door.",
        [("_total", {"door": door}, stats.bytes) for door, stats in doors],
    )
    family(
        "proxystore_hpc_transfer_seconds",
        "counter",
        "seconds",
        "Time of the transfers through a door, summed.",
        [("_total", {"door": door}, stats.seconds) for door, stats in doors],
    )
    family(
        "proxystore_hpc_operation_seconds",
        "summary",
        "seconds",
        "Time of an operation.",
        [
            sample
            for event, stats in times
            for sample in (
                ("_count", {"event": event}, stats.count),
                ("_sum", {"event": event}, stats.count * stats.avg_time_ms / 1e3),
            )
        ],
    )
    family(
        "proxystore_hpc_operation_seconds_max",
        "gauge",
        "",
        "Longest time of an operation.",
        [("", {"event": event}, stats.max_time_ms / 1e3) for event, stats in times],
    )
    family(
        "proxystore_hpc_events",
        "counter",
        "",
        "How often something happened.",
        [
            ("_total", {"event": event}, value)
            for event, value in sorted(metrics.aggregate_counters().items())
        ],
    )
    lines.append("# EOF")
    return "\n".join(lines) + "\n"


_Sample = tuple[str, dict[str, str], float]


def _plain_times(times: Mapping[str, TimeStats]) -> dict[str, dict[str, Any]]:
    # JSON has no infinity, which stands for the least of nothing.
    return {
        event: {k: None if v == math.inf else v for k, v in stats.as_dict().items()}
        for event, stats in times.items()
    }


def _braced(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
