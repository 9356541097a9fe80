"""Numbers by model in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from deployments.tally import Stat

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(stats: Mapping[str, Mapping[Stat, float]]) -> str:
    """
    >>> exposition({"x": {"ensemble_open_sessions": 0}}).splitlines()[1]
    'ensemble_open_sessions{model="x"} 0'
    >>> exposition({"x": {("ensemble_usage_calls_total", (("member", "a"),)): 2}}).splitlines()[1]
    'ensemble_usage_calls_total{model="x",member="a"} 2'

    Args:
        stats: by model, value by metric name, or by name and further labels. Names that end in ``_total`` are counters,
            all others gauges.
    """
    families: dict[str, list[str]] = {}
    for metric, sample in _samples(stats):
        families.setdefault(metric, []).append(sample)
    return "".join(_family(metric, samples) for metric, samples in families.items())


def _samples(stats: Mapping[str, Mapping[Stat, float]]) -> Iterator[tuple[str, str]]:
    for model, values in stats.items():
        for stat, value in values.items():
            metric, labels = (stat, ()) if isinstance(stat, str) else stat
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in (("model", model), *labels))
            yield metric, f"{metric}{{{shown}}} {value}\n"


def _family(metric: str, samples: Iterable[str]) -> str:
    kind = "counter" if metric.endswith("_total") else "gauge"
    return f"# TYPE {metric} {kind}\n" + "".join(samples)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
