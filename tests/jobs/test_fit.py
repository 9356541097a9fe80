"""``ensemble fit`` on the miniature models: what it makes loads where it belongs, and what it cannot fit is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cluster.app import settings_of
from cluster.config import load
from deployments.engines.engine import EngineMember
from deployments.engines.loading import start
from ensemble.artifacts import manifest_of
from ensemble.member import Distribution
from ensemble.request import Request
from ensemble.zoo import directory
from ensemble.zoo.tasks import generate
from jobs.commands.fit import fit
from jobs.fitting import citer

EXPERTS = {"add": "adder", "chain": "adder", "reverse": "words", "capital": "words"}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(fit, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def questions(path: Path, tasks: Sequence[str], count: int) -> Path:
    items = [item for task in tasks for item in generate(task, count, 5, "train")]
    rows = [{"question": i.prompt, "answer": i.answer, "expert": EXPERTS[i.task]} for i in items]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def resident(snippet: str, models: Mapping[str, str]) -> str:
    """A configuration of zoo models with the heads of a snippet."""
    heads = yaml.safe_load(snippet[snippet.index("models:") :])["models"]
    text = {name: {"source": {"zoo": zoo}, **heads.get(name, {})} for name, zoo in models.items()}
    return str(yaml.safe_dump({"models": text})) + "\n"


async def told(configuration: str, model: str, head: str) -> Distribution:
    """What a head that was loaded as a replica loads it says of a question."""
    engines = await start(settings_of(model, load(configuration).models[model]))
    engine = engines[model]
    try:
        async with await EngineMember(engine).start(Request.of("47+38=")) as session:
            return await session.next(0, head=head)
    finally:
        await engine.shut()


def test_a_projection_is_fitted_loaded_and_read(tmp_path: Path) -> None:
    output = tmp_path / "eva"
    said = run("eva", "--members", "adder,words,pairs", "--output", str(output))
    assert sorted(path.name for path in output.iterdir() if not path.name.startswith(".")) == ["pairs", "words"]
    manifest = manifest_of(output / "words")
    assert (manifest.method, manifest.kind, manifest.member) == ("eva", "projection", "words")
    assert set(manifest.others) == {"adder", "pairs"}
    outcomes = asyncio.run(told(resident(said, {"words": "words", "adder": "adder"}), "words", "eva"))
    assert outcomes.size == len(json.loads((directory("adder") / "tokenizer.json").read_text())["model"]["vocab"])


def test_expert_rows_are_fitted_to_who_should_answer(tmp_path: Path) -> None:
    data = questions(tmp_path / "who.jsonl", tuple(EXPERTS), 40)
    arguments = ("etr", "--members", "mixed,adder,words", "--data", str(data), "--output", str(tmp_path / "etr"))
    said = run(*arguments)
    manifest = manifest_of(tmp_path / "etr" / "mixed")
    assert manifest.metrics["accuracy"] > 0.8, "two thirds would be right of who always says the same"
    assert manifest.settings["experts"] == ["adder", "words"] and manifest.data
    assert "etr" in said and str(tmp_path / "etr" / "mixed") in said
    outcomes = asyncio.run(told(resident(said, {"mixed": "mixed"}), "mixed", "etr"))
    assert int(outcomes.ids[0]) == 1, "the adder is wanted for a sum"


def test_a_router_is_fitted_and_a_stopped_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = questions(tmp_path / "sums.jsonl", ("add",), 70)
    models = tmp_path / "models.yaml"
    models.write_text("models: {pupil: {source: {zoo: pupil}}, adder: {source: {zoo: adder}}}\n")
    arguments = (
        "citer",
        str(models),
        "--members",
        "pupil,adder",
        "--data",
        str(data),
        "--output",
        str(tmp_path / "citer"),
    )
    labelled, calls = citer.labelled, list[int]()

    async def counted(*given: object) -> object:
        calls.append(len(given[2]))  # type: ignore[arg-type]
        if len(calls) == 2:
            raise KeyboardInterrupt
        return await labelled(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(citer, "labelled", counted)
    stopped = CliRunner().invoke(fit, arguments)
    assert stopped.exit_code == 130 and "goes on from there" in stopped.output, stopped.output
    assert not (tmp_path / "citer" / "pupil").exists()
    said = run(*arguments)
    assert calls == [32, 32, 32, 6], "the first part is not labelled again"
    assert manifest_of(tmp_path / "citer" / "pupil").kind == "router" and "auc" in said


REFUSED = {
    "one member": (["eva", "--members", "adder"], "at least 2 members: the pivot, then its helpers"),
    "three for two": (["citer", "--members", "a,b,c"], "is fitted to 2 members: the small member, then the large one"),
    "twice": (["eva", "--members", "adder,adder"], "named twice"),
    "no data": (["etr", "--members", "mixed,adder"], "needs --data"),
    "needless data": (["eva", "--members", "adder,words", "--data", "DATA"], "needs no data"),
    "an unknown model": (["eva", "--members", "adder,wodrs"], "did you mean 'words'"),
    "an unknown option": (["eva", "--members", "adder,words", "--option", "neighbors=3"], "did you mean 'neighbours'"),
    "a wrong value": (["eva", "--members", "adder,words", "--option", "neighbours=many"], "valid integer"),
    "two vocabularies": (["citer", "--members", "pairs,adder", "--data", "DATA"], "different vocabularies"),
    "a part of no data": (["eva", "--members", "adder,words", "--split", "0.5"], "--split: nothing that a fit of eva"),
    "a column of no data": (["eva", "--members", "adder,words", "--answer", "a"], "--answer: nothing that"),
    "a part of all data": (["citer", "--members", "a,b", "--data", "DATA", "--split", ".5"], "--split: nothing that"),
    "no rounds": (["packllm", "--members", "adder,words", "--data", "DATA", "--option", "rounds=0"], "at least 1"),
    "a stranger": (["etr", "--members", "mixed,adder", "--data", "DATA"], "'words' is none of the members"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_fitted_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    arguments, says = REFUSED[what]
    data = questions(tmp_path / "who.jsonl", tuple(EXPERTS), 4)
    given = [str(data) if argument == "DATA" else argument for argument in arguments]
    result = CliRunner().invoke(fit, [*given, "--output", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert not (tmp_path / "out").exists()


def test_weights_by_prompt_are_calibrated_to_who_should_answer(tmp_path: Path) -> None:
    data = questions(tmp_path / "who.jsonl", tuple(EXPERTS), 20)
    said = run("packllm", "--members", "adder,words", "--data", str(data), "--output", str(tmp_path / "packllm"))
    manifest = manifest_of(tmp_path / "packllm" / "options")
    # Both were taught the form of all questions, so that their losses tell little of who knows the answer.
    assert abs(manifest.metrics["weight"] - manifest.metrics["weight_uncalibrated"]) < 0.1
    entry = yaml.safe_load(said[said.index("ensembles:") :])["ensembles"]["packllm"]
    models = {name: {"source": {"zoo": name}} for name in ("adder", "words")}
    configuration = load(yaml.safe_dump({"models": models, "ensembles": {"packllm": entry}}))
    assert configuration.ensembles["packllm"].options["tau"] > 0
