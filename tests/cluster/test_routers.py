"""Routers in a configuration: encoders, feedback, and artifacts that may not be on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.app import Arguments, _listing, build, places
from cluster.config import load, parse
from cluster.plan import plan
from ensemble.errors import ConfigurationError
from tests.ensemble.before.routing.desks import artifact, router

TEXT = """
models:
  a: {{source: {{zoo: adder}}, sessions: 4}}
  b: {{source: {{zoo: words}}, sessions: 8}}
{sections}
ensembles:
  r: {{method: {method}, members: [a, b], {given}}}
"""


def text(given: str = "options: {path: router}", method: str = "knn_router", sections: str = "") -> str:
    return TEXT.format(given=given, method=method, sections=sections)


def written(folder: Path, *given: str, **more: str) -> Path:
    file = folder / "service.yaml"
    file.write_text(text(*given, **more))
    return file


def test_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    sections = "feedback: {path: said.jsonl}\nencoders: {e: {source: {path: mini}}}"
    found = load(written(tmp_path, sections=sections))
    assert found.ensembles["r"].options["path"] == str(tmp_path / "router")
    assert found.feedback is not None and found.feedback.path == tmp_path / "said.jsonl"
    assert found.encoders["e"].source.path == tmp_path / "mini"  # type: ignore[union-attr]
    assert parse(found.as_dict()) == found


def test_an_artifact_need_not_be_on_this_machine(tmp_path: Path) -> None:
    load(written(tmp_path))


def test_one_that_is_here_has_to_fit(tmp_path: Path) -> None:
    artifact(tmp_path / "router", router({"a": (1.0, 1.0, 1.0), "z": (0.0, 0.0, 0.0)}))
    with pytest.raises(ConfigurationError, match=r"service.yaml:7: ensembles.r.members: the router knows nothing of b"):
        load(written(tmp_path))
    with pytest.raises(ConfigurationError, match="needed: carrot"):
        load(written(tmp_path, method="carrot"))


REFUSED = {
    "no path": (text("options: {}"), "ensembles.r.options.path: method knn_router needs path"),
    "a fallback": (text("options: {path: r, fallback: c}"), "ensembles.r.options.fallback: fallback 'c' is no member"),
    "a policy": (text("options: {path: r, policy: {kind: best}}"), "ensembles.r.options.policy: option"),
    "an encoder": (text("encoder: mini, options: {path: r}"), "ensembles.r.encoder: unknown encoder 'mini'"),
    "a method that reads none": (
        text("encoder: e", "gac", "encoders: {e: {source: {zoo: mixed}}}"),
        "ensembles.r.encoder: method gac reads no embeddings",
    ),
    "an encoder's source": (
        text(sections="encoders: {e: {source: {zoo: mixd}}}"),
        "encoders.e.source.zoo: unknown zoo member 'mixd', did you mean 'mixed'?",
    ),
    "no GPU": (text(sections="encoders: {e: {source: {zoo: mixed}, device: cuda}}"), "encoders.e: device is cuda"),
    "two devices": (
        text(sections="encoders: {e: {source: {zoo: mixed}, device: cpu, resources: {gpus: 1}}}"),
        "encoders.e: device is cpu, but resources.gpus reserves 1; leave one of them out",
    ),
    "a kind of GPU and none": (
        text(sections="encoders: {e: {source: {zoo: mixed}, resources: {accelerator_type: H100}}}"),
        "encoders.e: resources.accelerator_type is given without GPUs",
    ),
    "an option": (text("options: {path: r, treshold: 1}"), "ensembles.r.options.treshold: method knn_router has no"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(ConfigurationError) as refused:
        load(given)
    assert message in refused.value.message


SECTIONS = "encoders: {e: {source: {zoo: mixed}, replicas: 2}}\nfeedback: {path: /tmp/said.jsonl}"


def test_the_plan_has_deployments_for_both(tmp_path: Path) -> None:
    deployments = plan(load(text(sections=SECTIONS))).deployments
    made = [(d.served_as, d.role, d.replicas) for d in deployments]
    assert ("encoder-e", "encoder", 2) in made and ("feedback", "feedback", 1) in made


def test_one_member_is_enough_and_places_are_those_of_all() -> None:
    found = load(text(sections=SECTIONS))
    listing: Any = _listing(found, "r")
    assert (listing.least, listing.feedback) == (1, True)
    assert places(found, "r") == 3 + 7
    assert not _listing(load(text()), "r").feedback


def test_the_application_gives_routers_what_they_may_ask(tmp_path: Path) -> None:
    found = load(text(sections=SECTIONS))
    gateway = build(Arguments(config=found.as_dict()))
    assert gateway is not None


def test_the_configuration_in_the_documentation_loads() -> None:
    page = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert [d.served_as for d in plan(load(example)).deployments if d.role in ("encoder", "feedback")] == [
        "encoder-minilm",
        "feedback",
    ]
