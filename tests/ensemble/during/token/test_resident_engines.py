"""EVA and DeePEn over real models of different vocabularies: fitted, saved, loaded by engines, and run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest
import pytest_asyncio

from deployments.engines.engine import EngineMember
from deployments.engines.fetching import load, resolve
from deployments.engines.loading import start
from deployments.engines.settings import HeadSettings, ModelSettings
from deployments.engines.sources import ZooSource
from deployments.engines.tokenisation import tokeniser_of
from ensemble import artifacts
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.errors import ConfigurationError, MissingCapability
from ensemble.fitting.deepen import fit_deepen
from ensemble.fitting.eva import EvaFit, fit_eva
from ensemble.fitting.models import ModelArrays
from ensemble.request import Request
from ensemble.zoo.tasks import TASKS, Item, check, generate

NAMES = ("words", "adder", "mixed")
METHODS = [
    ("eva", {"drop": 0, "head": "same"}),
    ("eva", {"drop": 0, "head": "similar"}),
    ("deepen", {"step": 0.5}),
    ("deepen", {"step": 0.5, "digits": True, "fidelity": "reference"}),
]
IDS = ["eva-same", "eva-similar", "deepen", "deepen-digits"]


def arrays(name: str) -> ModelArrays:
    model, tokenizer = load(resolve(ZooSource(zoo=name), None), "float32")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    vocabulary = tokeniser_of(model, tokenizer).vocabulary
    return ModelArrays(name, vocabulary, inputs.weight.detach().numpy(), outputs.weight.detach().numpy())


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, HeadSettings]]:
    """Heads of each member, as a configuration would have them; ``words`` is the pivot."""
    folder, models = tmp_path_factory.mktemp("artifacts"), [arrays(name) for name in NAMES]
    found: dict[str, dict[str, artifacts.Artifact]] = {name: {} for name in NAMES}
    for helper in models[1:]:
        for shared in ("same", "similar"):
            found[helper.name][shared] = fit_eva(helper, models[0], EvaFit(shared=shared))
    for name, artifact in fit_deepen(models).items():
        found[name]["deepen"] = artifact
    for name, held in found.items():
        for head, artifact in held.items():
            artifacts.save(folder / f"{name}-{head}", *artifact)
    return {
        name: {head: HeadSettings(a.manifest.kind, folder / f"{name}-{head}") for head, a in held.items()}
        for name, held in found.items()
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def members(heads: Mapping[str, dict[str, HeadSettings]]) -> AsyncIterator[list[EngineMember]]:
    engines = []
    for name in NAMES:
        settings = ModelSettings(name=name, source=ZooSource(zoo=name), heads=heads[name], slots=8)
        engines.extend((await start(settings)).values())
    yield [EngineMember(engine) for engine in engines]
    for engine in engines:
        assert engine.stats()["open_sessions"] == 0
        await engine.shut()


async def accuracy(ensemble: Ensemble, items: list[Item]) -> float:
    answers = await together(ensemble.answer(Request.of(item.prompt, max_tokens=48)) for item in items)
    return float(np.mean([check(item, answer.text) for item, answer in zip(items, answers, strict=True)]))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "options"), METHODS[:3], ids=IDS[:3])
async def test_two_of_different_skills_answer_what_one_does_not(members, method, options) -> None:
    # Each of the two has learnt two of the tasks and is right in half of all items alone.
    items = [item for task in TASKS for item in generate(task, 5, 0)]
    together_ = await accuracy(Ensemble("e", method, members[:2], options=options), items)
    assert together_ > (0.6 if options.get("head") == "similar" else 0.85)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "options"), METHODS, ids=IDS)
async def test_requests_that_share_passes_get_what_they_get_alone(members, method, options) -> None:
    ensemble = Ensemble("e", method, members, options=options)
    prompts = ["47+38=", "capital of France=", "reverse stone=", "sum 12+30+45:\n"]
    requests = [Request.of(prompt, max_tokens=16) for prompt in prompts]
    alone = [(await ensemble.answer(request)).text for request in requests]
    assert [answer.text for answer in await together(map(ensemble.answer, requests))] == alone


@pytest.mark.asyncio(loop_scope="module")
async def test_a_step_takes_one_pass_at_each_member(members) -> None:
    for method, options in METHODS[0], METHODS[2]:
        before = [member._engine.stats()["steps"] for member in members[:2]]
        answer = await Ensemble("e", method, members[:2], options=options).answer(Request.of("47+38=", max_tokens=8))
        passes = [member._engine.stats()["steps"] - b for member, b in zip(members, before, strict=False)]
        steps = answer.usage["adder"].completion_tokens
        assert answer.text == "85" and steps == 3 and passes == [steps, steps]


@pytest.mark.asyncio(loop_scope="module")
async def test_members_that_do_not_have_what_is_needed_are_refused(members) -> None:
    with pytest.raises(MissingCapability, match="kind projection at words"):
        Ensemble("e", "eva", members[::-1], options={"head": "same"})
    with pytest.raises(MissingCapability, match=r"needs a head 'similar' of kind relative at words; its heads: deepen"):
        Ensemble("e", "deepen", members, options={"head": "similar"})
    with pytest.raises(ConfigurationError, match="into another vocabulary than that of adder"):
        Ensemble("e", "eva", [members[1], members[2]], options={"head": "same"})
