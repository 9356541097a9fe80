"""Numbers by model in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(stats: Mapping[str, Mapping[str, float]]) -> str:
    """
    >>> exposition({"x": {"ensemble_open_sessions": 0}}).splitlines()[1]
    'ensemble_open_sessions{model="x"} 0'

    Args:
        stats: by model, value by metric name. Names that end in ``_total`` are counters, all others gauges.
    """
    metrics = dict.fromkeys(metric for values in stats.values() for metric in values)
    return "".join(_family(metric, stats) for metric in metrics)


def _family(metric: str, stats: Mapping[str, Mapping[str, float]]) -> str:
    kind = "counter" if metric.endswith("_total") else "gauge"
    samples = (f'{metric}{{model="{_escaped(m)}"}} {v[metric]}\n' for m, v in stats.items() if metric in v)
    return f"# TYPE {metric} {kind}\n" + "".join(samples)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
