"""Render the examples in ``k8s/`` anew, as ``k8s/rendered.yaml`` says; a test keeps them up to date."""

from __future__ import annotations

from pathlib import Path

import yaml

from cluster.config import ZOO, load
from cluster.kubernetes import render, text
from cluster.pods import Target

ROOT = Path(__file__).parents[1]


def main() -> None:
    for name, options in yaml.safe_load((ROOT / "k8s" / "rendered.yaml").read_text(encoding="utf-8")).items():
        source = ZOO if name == "zoo" else ROOT / "examples" / f"{name}.yaml"
        for item in render(load(source), Target(**options.get("target", {})), batch=options.get("batch", ())):
            path = ROOT / "k8s" / name / f"{item['kind'].lower()}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text([item]), encoding="utf-8")


if __name__ == "__main__":
    main()
