"""``ensemble fit ROUTER``: from an outcome table to an artifact that is served, with an honest word on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner

from cluster.config import load
from ensemble.artifacts import manifest_of
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.knn_router import KnnRouter
from ensemble.before.policies import policy
from ensemble.before.routing.loading import FEEDBACK
from ensemble.before.routing.router import Router, kept
from ensemble.outcomes.table import Outcomes
from jobs.commands.fit import fit
from jobs.fitting import routers as fitting
from jobs.fitting.routers import Order, digest

TASKS = {"sum": "{}+{}=", "capital": "capital of city {} in the land {}"}
RIGHT = {"adder": (0.95, 0.1), "words": (0.1, 0.9)}
COST = {"adder": 0.001, "words": 0.004}


def rows(count: int = 160, seed: int = 0, **rates: tuple[float, float]) -> Iterator[dict[str, object]]:
    random = np.random.default_rng(seed)
    for i in range(count):
        task = list(TASKS)[i % 2]
        text = TASKS[task].format(*random.integers(10, 99, 2))
        for member, rate in (rates or RIGHT).items():
            right = float(random.random() < rate[i % 2])
            cost = COST.get(member, 0.002)
            yield {
                "query_id": f"{seed}-{i}",
                "text": text,
                "task": task,
                "member": member,
                "quality": right,
                "cost": cost,
            }


def table(path: Path, features: bool = False, **given: object) -> str:
    found = Outcomes.of(pa.Table.from_pylist(list(rows(**given))))  # type: ignore[arg-type]
    if features:
        kinds = [task == "sum" for task in found.column("task")]
        found = found.join(features=np.array([[float(kind), float(not kind)] for kind in kinds], np.float32))
    found.write(path)
    return str(path)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return table(tmp_path_factory.mktemp("table") / "outcomes.parquet")


@dataclass
class Said:
    status: int
    out: str
    all: str


def run(*arguments: str) -> Said:
    result = CliRunner().invoke(fit, arguments)
    return Said(result.exit_code, result.stdout, result.output)


def fitted(*arguments: str) -> Said:
    said = run(*arguments)
    assert said.status == 0, said.all
    return said


def snippet(said: Said) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load(said.out[said.out.index("ensembles:") :])["ensembles"]
    return found


def test_a_router_is_fitted_told_of_and_served(outcomes: str, tmp_path: Path) -> None:
    output = tmp_path / "knn"
    said = fitted("knn_router", "--outcomes", outcomes, "--output", str(output), "--option", "k=9", "--seed", "3")
    assert "32 queries that were not fitted to" in said.out
    assert "knn_router beats the best single member" in said.out
    manifest = manifest_of(output)
    assert (manifest.method, manifest.kind, manifest.members) == ("knn_router", "routing", ("adder", "words"))
    assert manifest.encoder == "" and manifest.data == digest(Path(outcomes))
    assert manifest.settings["options"]["k"] == 9 and manifest.settings["seed"] == 3
    assert manifest.metrics["quality"] > manifest.metrics["best_single"] + 0.2 and manifest.metrics["tested_on"] == 32
    router = kept(output, "knn_router")
    assert router.encoder is not None
    quality = router.predict(router.encoder.embed(["48+51=", "capital of city 12 in the land 13"])).quality
    assert quality.argmax(axis=1).tolist() == [0, 1]
    models = {name: {"source": {"zoo": name}} for name in ("adder", "words")}
    loaded = load(yaml.safe_dump({"models": models, "ensembles": snippet(said)}))
    assert loaded.ensembles["knn_router"].members == ("adder", "words")


def test_equal_commands_give_equal_routers(outcomes: str, tmp_path: Path) -> None:
    for name in ("one", "other"):
        fitted("knn_router", "--outcomes", outcomes, "--output", str(tmp_path / name))
    one, other = ((tmp_path / name / "tensors.safetensors").read_bytes() for name in ("one", "other"))
    assert one == other


def test_who_does_not_beat_the_best_single_member_is_said_not_to(tmp_path: Path) -> None:
    where = table(tmp_path / "t.parquet", adder=(0.9, 0.9), words=(0.1, 0.1))
    said = fitted("knn_router", "--outcomes", where, "--output", str(tmp_path / "knn"))
    assert "knn_router does not beat the best single member, adder: +0.0 [+0.0, +0.0]" in said.out


def test_several_routers_are_fitted_by_one_command_and_refusals_told(tmp_path: Path) -> None:
    where = table(tmp_path / "t", features=True, adder=(0.9, 0.1), words=(0.1, 0.9), both=(0.5, 0.5))
    names = "knn_router,hybrid_llm,carrot"
    output = tmp_path / "all"
    said = fitted("--routers", names, "--outcomes", where, "--encoder", "features", "--output", str(output))
    assert sorted(path.name for path in output.iterdir()) == ["carrot", "knn_router"]
    assert "hybrid_llm was not fitted: hybrid_llm routes between two members" in said.out
    assert kept(output / "knn_router", "knn_router").encoder is None and "name it in `encoder`" in said.out
    assert list(snippet(said)) == ["knn_router", "carrot"]


def test_all_are_the_methods_before_inference() -> None:
    from jobs.fitting.routing import named

    names = named(None, "all", ())
    assert "knn_router" in names and not {"citer", "unite"} & set(names)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("--budget", "0.002"), "utility"),
        (("--budget", "0.002", "--policy", "{kind: within}"), "within"),
        (("--drop", "0.3"), "utility"),
        (("--share", "0.4"), "threshold"),
        (("--policy", "{kind: mix, mu: 0.25}"), "mix"),
    ],
    ids=str,
)
def test_the_policy_that_is_set_is_what_the_configuration_gets(
    outcomes: str, tmp_path: Path, arguments: tuple[str, ...], kind: str
) -> None:
    output = tmp_path / "knn"
    said = fitted("knn_router", "--outcomes", outcomes, "--output", str(output), *arguments)
    settings = manifest_of(output).settings
    entry = snippet(said)["knn_router"]["options"]
    assert isinstance(entry, dict) and policy(entry["policy"]) == policy(settings["policy"])
    assert entry["policy"]["kind"] == kind
    if arguments[0] != "--policy":
        assert settings[arguments[0][2:]] == float(arguments[1])


def test_the_service_is_told_which_feedback_the_router_knows(outcomes: str, tmp_path: Path) -> None:
    for number, given in (({}, ()), ({FEEDBACK: 41}, ("--feedback", "41"))):
        fitted("knn_router", "--outcomes", outcomes, "--output", str(tmp_path / "o"), *given)
        settings = manifest_of(tmp_path / "o").settings
        assert {name: value for name, value in settings.items() if name == FEEDBACK} == number


def test_members_of_the_table_can_be_left_out(tmp_path: Path) -> None:
    where = table(tmp_path / "t.parquet", adder=(0.9, 0.1), words=(0.1, 0.9), both=(0.5, 0.5))
    fitted("knn_router", "--outcomes", where, "--output", str(tmp_path / "o"), "--members", "words,both")
    assert manifest_of(tmp_path / "o").members == ("words", "both")


def with_silent(path: Path) -> str:
    """A table that has a third member, of which no answer was graded."""
    told = list(rows())
    silent = [{**row, "member": "silent", "quality": None} for row in told[::4]]
    Outcomes.of(pa.Table.from_pylist([*told, *silent])).write(path)
    return str(path)


def test_of_whom_nothing_is_known_is_left_out_and_told(tmp_path: Path) -> None:
    silent = with_silent(tmp_path / "silent.parquet")
    said = fitted("knn_router", "--outcomes", silent, "--output", str(tmp_path / "knn"))
    assert "silent was left out: no query that is fitted to has an outcome with a quality of it" in said.out
    assert kept(tmp_path / "knn").members == ("adder", "words") and "beats the best single" in said.out
    wider = ("--add-member", "silent", "--from", str(tmp_path / "knn"), "--output", str(tmp_path / "wider"))
    assert (
        "silent has no outcome with a quality: it counts as" in fitted("knn_router", "--outcomes", silent, *wider).out
    )


@pytest.mark.parametrize("members", ["adder,silent", "silent"])
def test_of_whom_nothing_is_known_is_not_asked_for_by_name(tmp_path: Path, members: str) -> None:
    silent, out = with_silent(tmp_path / "silent.parquet"), tmp_path / "out"
    said = run("knn_router", "--outcomes", silent, "--members", members, "--output", str(out))
    assert said.status == 2 and "no query that is fitted to has an outcome with a quality of silent" in said.all
    assert not out.exists()


def test_with_nothing_left_out_nothing_is_claimed(outcomes: str, tmp_path: Path) -> None:
    said = fitted("knn_router", "--outcomes", outcomes, "--output", str(tmp_path / "o"), "--split", "1")
    assert "nothing is known" in said.out and manifest_of(tmp_path / "o").metrics == {}


def test_the_tables_own_parts_are_used(tmp_path: Path) -> None:
    cells = [{**row, "split": "test" if str(row["query_id"]).endswith("7") else "train"} for row in rows()]
    Outcomes.of(pa.Table.from_pylist(cells)).write(tmp_path / "t.parquet")
    fitted("knn_router", "--outcomes", str(tmp_path / "t.parquet"), "--output", str(tmp_path / "o"))
    assert manifest_of(tmp_path / "o").metrics["tested_on"] == 16


def test_a_member_is_added_from_few_outcomes(outcomes: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    fitted("knn_router", "--outcomes", outcomes, "--output", str(old), "--option", "k=3")
    few = table(tmp_path / "few.parquet", count=10, seed=9, pupil=(1.0, 0.0))
    added = ("knn_router", "--outcomes", few, "--add-member", "pupil", "--from", str(old), "--output", str(new))
    out = fitted(*added).out
    assert f"{new}: adder, words, pupil\npupil was learned from 10 outcomes" in out
    before, after = kept(old), kept(new, "knn_router")
    assert after.members == ("adder", "words", "pupil") and after.encoder is not None
    x = after.encoder.embed(["48+51=", "capital of city 12 in the land 13"])
    quality = after.predict(x).quality
    assert quality[:, :2] == pytest.approx(before.predict(x).quality) and quality[0, 2] > quality[1, 2]
    manifest = manifest_of(new)
    assert manifest.settings["added"]["pupil"]["outcomes"] == 10 and manifest.data == manifest_of(old).data


@pytest.mark.parametrize("name", ["blending", "pickllm", "eagle", "zooter"])
def test_routers_of_every_kind_take_one(outcomes: str, tmp_path: Path, name: str) -> None:
    """Also those that do not look at questions, and keep no encoder."""
    fitted(name, "--outcomes", outcomes, "--output", str(tmp_path / "old"))
    few = table(tmp_path / "few.parquet", count=10, seed=9, pupil=(1.0, 0.0))
    wider = ("--add-member", "pupil", "--from", str(tmp_path / "old"), "--output", str(tmp_path / "new"))
    assert "pupil was learned from 10 outcomes" in fitted(name, "--outcomes", few, *wider).out
    assert kept(tmp_path / "new", name).members == ("adder", "words", "pupil")


def test_who_cannot_take_one_says_what_to_do(outcomes: str, tmp_path: Path) -> None:
    fitted("hybrid_llm", "--outcomes", outcomes, "--output", str(tmp_path / "old"))
    few = table(tmp_path / "few.parquet", count=10, seed=9, pupil=(1.0, 0.0))
    wider = ("--add-member", "pupil", "--from", str(tmp_path / "old"), "--output", str(tmp_path / "new"))
    said = run("hybrid_llm", "--outcomes", few, *wider)
    assert said.status == 2 and "fit best_route, which does the same for more" in " ".join(said.all.split())
    assert not (tmp_path / "new").exists()


REFUSED = {
    "an unknown method": (["carot"], "allowed: avengers_pro, bench_coe"),
    "an unknown router": (["--routers", "knn_router,carot"], "nothing is fitted for carot"),
    "nothing": ([], "name a METHOD, or --routers"),
    "both": (["knn_router", "service.yaml", "--routers", "all"], "leave one out"),
    "no table": (["knn_router", "NO"], "fitted to --outcomes"),
    "a missing table": (["knn_router", "--outcomes", "nowhere.parquet"], "nowhere.parquet"),
    "an unknown member": (["knn_router", "--members", "adder,gpt"], "the table has no member gpt"),
    "an unknown option": (["knn_router", "--option", "kk=3"], "no option 'kk', did you mean 'k'"),
    "a wrong value": (["knn_router", "--option", "k=many"], "valid integer"),
    "options of several": (["--routers", "all", "--option", "k=1"], "options are those of one router"),
    "features that are not there": (["knn_router", "--encoder", "features"], "came with no embeddings"),
    "an unknown encoder": (["knn_router", "--encoder", "minilm"], "no encoder is named 'minilm'"),
    "no policy": (["knn_router", "--policy", "{kind: dear}"], "no policy is of kind 'dear'"),
    "no YAML": (["knn_router", "--policy", "{kind: "], "--policy is no YAML"),
    "two knobs": (["knn_router", "--share", ".3", "--drop", ".1"], "a policy keeps one of them"),
    "a knob without a part": (["knn_router", "--split", "1", "--drop", ".1"], "leave some out with split"),
    "a knob of another policy": (["knn_router", "--share", ".3", "--policy", "{kind: mix}"], "kind threshold"),
    "a stranger in the policy": (["knn_router", "--policy", "{kind: threshold, weak: gpt}"], "'gpt' of the policy"),
    "options of other fits": (["knn_router", "--data", "x.jsonl", "--grade", "exact"], "--data, --grade: nothing"),
    "of a router": (["eva", "--members", "adder,words", "--share", ".1"], "--outcomes, --share: nothing"),
    "no members": (["eva", "NO"], "eva needs --members"),
    "a source alone": (["knn_router", "--from", "x"], "goes with --add-member"),
    "a member from nowhere": (["knn_router", "--add-member", "x"], "needs --from"),
    "a member from no router": (["knn_router", "--add-member", "x", "--from", "nowhere"], "holds no artifact"),
    "a member and a fit": (["knn_router", "--add-member", "x", "--from", "d", "--split", ".5"], "--split: nothing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_fitted_is_refused_and_leaves_nothing(outcomes: str, tmp_path: Path, what: str) -> None:
    arguments, says = REFUSED[what]
    given = [argument for argument in arguments if argument != "NO"]
    named = () if {"NO", "--outcomes"} & set(arguments) else ("--outcomes", outcomes)
    said = run(*given, *named, "--output", str(tmp_path / "out"))
    assert said.status == (1 if what == "a member from no router" else 2), said.all
    assert says in " ".join(said.all.split())
    assert not (tmp_path / "out").exists()


def test_a_served_encoder_is_loaded_and_its_fingerprint_kept(outcomes: str, tmp_path: Path) -> None:
    service = tmp_path / "service.yaml"
    service.write_text("encoders: {tiny: {source: {zoo: pupil}}}\nmodels: {adder: {source: {zoo: adder}}}\n")
    output, few = tmp_path / "knn", tmp_path / "few"
    fitted("knn_router", str(service), "--encoder", "tiny", "--outcomes", outcomes, "--output", str(output))
    name, fingerprint = manifest_of(output).encoder.split()
    assert name == "tiny" and len(fingerprint) >= 8 and kept(output).encoder is None
    new = table(tmp_path / "few.parquet", count=10, seed=9, pupil=(1.0, 0.0))
    arguments = ("knn_router", str(service), "--add-member", "pupil", "--from", str(output), "--outcomes", new)
    fitted(*arguments, "--output", str(few))
    assert kept(few).members[-1] == "pupil" and manifest_of(few).encoder == f"tiny {fingerprint}"
    service.write_text("encoders: {tiny: {source: {zoo: adder}}}\nmodels: {adder: {source: {zoo: adder}}}\n")
    said = run(*arguments, "--output", str(tmp_path / "other"))
    assert said.status == 1 and "fit the router again" in said.all


def test_one_that_breaks_costs_nobody_else(outcomes: str, tmp_path: Path) -> None:
    class Broken(KnnRouter):
        @classmethod
        def fit(cls, training: Training, options: FitOptions) -> Router:
            raise ZeroDivisionError("no queries like these")

    routers = {"broken": Broken, "knn_router": KnnRouter}
    report = fitting.run(Order(routers=routers, outcomes=Path(outcomes), output=tmp_path), lambda name: None)
    assert [found.method for found in report.fitted] == ["knn_router"]
    assert report.refused == {"broken": "its fit broke: ZeroDivisionError: no queries like these"}
    with pytest.raises(ZeroDivisionError):
        fitting.run(Order(routers={"broken": Broken}, outcomes=Path(outcomes), output=tmp_path), lambda name: None)
