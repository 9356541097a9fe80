from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import ZOO, Configuration, load, parse
from cluster.schema import amount
from ensemble.after.answers import extract
from ensemble.errors import ConfigurationError
from ensemble.failures.policy import Policy
from ensemble.method import build
from ensemble.request import Budget
from ensemble.zoo.tasks import TASKS, extract_answer, generate

EXAMPLES = [ZOO, *sorted(Path(__file__).parents[2].joinpath("examples").glob("*.yaml"))]

MODELS = "models:\n  a: {source: {zoo: adder}}\n  b: {source: {zoo: words}}\n"
"""Lines 1 to 3 of most texts below."""


def refusals(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load(text)
    return refused.value.message.split("\n")


def test_the_smallest_configuration_has_every_default():
    configuration = load("models:\n  a: {source: {zoo: adder}}\n")
    model = configuration.models["a"]
    assert (model.engine, model.dtype, model.device, model.context_length) == ("transformers", "auto", "auto", None)
    assert (model.sessions, model.threads, model.replicas, model.idle_seconds) == (16, 1, 1, 60.0)
    assert (model.resources.cpus, model.resources.gpus, model.price.value.input) == (1.0, 0.0, Decimal(0))
    assert (configuration.name, configuration.ensembles, configuration.judges) == ("ensemble", {}, {})
    assert (configuration.gateway.host, configuration.gateway.port) == ("127.0.0.1", 8000)


def test_values_reach_the_types_that_the_ensemble_takes():
    configuration = load(
        MODELS + "ensembles:\n  e:\n    method: agent_forest\n    members: [a, b]\n"
        "    budget: {cost: 0.1, seconds: 2}\n    caps: {n: 2, options: {samples: 12}}\n"
    )
    ensemble = configuration.ensembles["e"]
    assert ensemble.budget.value == Budget(cost=Decimal("0.1"), seconds=2.0, exhausted="error")
    assert (ensemble.caps.value.n, ensemble.caps.value.options) == (2, {"samples": 12.0})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_shipped_configurations_load_and_survive_json(path):
    configuration = load(path)
    assert parse(json.loads(json.dumps(configuration.as_dict()))) == configuration
    assert Configuration.model_validate(configuration.as_dict()) == configuration


@given(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(
                [{"zoo": "adder"}, {"hub": "a/b", "revision": "x"}, {"random": {"architecture": "llama"}}]
            )
        },
        optional={
            "sessions": st.integers(1, 99),
            "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
            "resources": st.fixed_dictionaries(
                {},
                optional={
                    "cpus": st.floats(0, 64),
                    "memory": st.sampled_from(["2GiB", 4096]),
                    "gpus": st.integers(0, 8),
                },
            ),
            "price": st.fixed_dictionaries({}, optional={"input": st.decimals(0, 100, places=4).map(str)}),
            "chat_template": st.text(min_size=1, max_size=20),
        },
    )
)
def test_every_valid_model_survives_the_way_over_json(model):
    configuration = parse({"models": {"m": model}})
    assert parse(json.loads(json.dumps(configuration.as_dict()))) == configuration


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [("2GiB", 2**31), ("500MB", 5 * 10**8), ("1.5 Gi", 3 * 2**29), ("4096", 4096), (7, 7), ("7", 7)],
)
def test_amounts_of_bytes(given, bytes_):
    assert amount(given) == bytes_


def cases(name: str) -> list[tuple[str, int, str]]:
    """Configurations that are refused, each with ``#! LINE: a part of the refusal`` as its last line."""
    blocks = Path(__file__).with_name(name).read_text().split("---\n")
    told = [(block, block.split("#! ")[1].strip().split(": ", 1)) for block in blocks]
    return [(block, int(line), message) for block, (line, message) in told]


SHAPES, FITS = cases("refused_shapes.yaml.txt"), cases("refused_fits.yaml.txt")


@pytest.mark.parametrize(("text", "line", "message"), [*SHAPES, *FITS])
def test_every_kind_of_mistake_is_refused_with_its_line(text, line, message):
    found = refusals(text)
    assert any(problem.startswith(f"<text>:{line}: ") and message in problem for problem in found), found


@pytest.mark.parametrize(("text", "message"), [(text, message) for text, _, message in FITS])
def test_plain_values_are_checked_like_a_file(text, message):
    with pytest.raises(ConfigurationError) as refused:
        parse(yaml.safe_load(text))
    assert message in refused.value.message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    found = refusals(
        MODELS + "judges:\n  j: {kind: verdict}\nensembles:\n"
        "  e: {method: gac, members: [a, x], options: {nope: 1, topk: 0}}\n  f: {method: nope, members: [a]}\n"
    )
    assert [line.split(":")[1] for line in found] == ["5", "7", "7", "7", "8"]


def test_a_longer_cycle_is_shown_as_a_way_through_it():
    found = refusals(
        MODELS + "ensembles:\n  e: {method: agent_forest, members: [a, f]}\n"
        "  f: {method: agent_forest, members: [b, g]}\n  g: {method: agent_forest, members: [e]}\n"
    )
    assert [problem.split("itself: ")[1].split(";")[0] for problem in found] == [
        "e → f → g → e", "f → g → e → f", "g → e → f → g",
    ]  # fmt: skip


def test_many_ways_between_ensembles_are_no_trouble():
    pairs = [f"  e{i}a: {{method: agent_forest, members: [e{i - 1}a, e{i - 1}b]}}" for i in range(1, 40)]
    twins = [pair.replace("a: {", "b: {", 1) for pair in pairs]
    first = ["  e0a: {method: agent_forest, members: [a]}", "  e0b: {method: agent_forest, members: [b]}"]
    caps = "caps: {depth: 99, fan_out: 10000000000000000000000000000000000000000000}"
    raised = [line.replace("]}", f"], {caps}}}") for line in (*first, *pairs, *twins)]
    assert len(load(MODELS + "ensembles:\n" + "\n".join(raised)).ensembles) == 80


def test_ensembles_that_multiply_beyond_their_caps_are_refused():
    forest = "{{method: agent_forest, members: [{}], options: {{samples: {}}}}}"
    chain = [f"  e{i}: {forest.format(f'e{i - 1}' if i else 'a', 9)}" for i in range(5)]
    found = refusals(MODELS + "ensembles:\n" + "\n".join(chain))
    assert [problem.partition(": ")[2].partition(";")[0] for problem in found] == [
        "ensembles.e2.caps.fan_out: one choice may begin 729 answers and sessions, above the cap of 512",
        "ensembles.e3.caps.fan_out: one choice may begin 6561 answers and sessions, above the cap of 512",
        "ensembles.e4.caps.depth: depth is 5, above its cap of 4",
        "ensembles.e4.caps.fan_out: one choice may begin 59049 answers and sessions, above the cap of 512",
    ]


def test_a_policy_is_a_word_or_all_of_it():
    ensembles = "ensembles:\n  e: {method: gac, members: [a, b], policy: %s}\n"
    assert load(MODELS + ensembles % "degrade").ensembles["e"].policy.value == Policy(on_loss="degrade")
    whole = "{on_loss: recover, quorum: 1, patience: 4, step_seconds: 2, hedge_seconds: 1, breaker: {failures: 2}}"
    expected = Policy(
        on_loss="recover", quorum=1, patience=4.0, step_seconds=2.0, hedge_seconds=1.0, breaker_failures=2
    )
    assert load(MODELS + ensembles % whole).ensembles["e"].policy.value == expected


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("{quorum: 1}", "quorum is nothing for on_loss: fail"),
        ("{on_loss: degrade, patience: 3}", "patience is nothing for on_loss: degrade"),
        ("{step_seconds: 1, hedge_seconds: 1}", "hedge_seconds must be below step_seconds"),
        ("sometimes", "allowed: 'fail', 'degrade' or 'recover'"),
    ],
)
def test_what_a_policy_has_no_use_for_is_refused(policy, told):
    (problem,) = refusals(MODELS + f"ensembles:\n  e: {{method: gac, members: [a, b], policy: {policy}}}\n")
    assert told in problem


def test_ensembles_nest_where_a_method_only_generates():
    text = MODELS + "ensembles:\n  f: {method: gac, members: [a, b]}\n  e: {method: agent_forest, members: [f, a]}\n"
    assert load(text).ensembles["e"].members == ("f", "a")


def test_two_keys_of_one_name_are_refused():
    (problem,) = refusals(MODELS + "models: {}\n")
    assert problem == "<text>:4: models: the key stands here a second time; it is already on line 1"


def test_files_that_cannot_be_read(tmp_path):
    for content, expected in [
        (b"", "c.yaml:1: the file is empty"),
        (b"models:\n  a: \xff\n", "c.yaml:2: the file is not UTF-8 text"),
        (b"models: [\n", "c.yaml:2: no valid YAML"),
    ]:
        (tmp_path / "c.yaml").write_bytes(content)
        with pytest.raises(ConfigurationError) as refused:
            load(tmp_path / "c.yaml")
        assert expected in refused.value.message
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: the file cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigurationError, match="the file cannot be read: Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + MODELS.encode())
    assert set(load(tmp_path / "c.yaml").models) == {"a", "b"}


def test_paths_are_taken_from_the_files_folder(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "c.yaml").write_text("models:\n  a: {source: {path: weights}, chat_template: {path: chat.jinja}}\n")
    model = load(tmp_path / "c.yaml").models["a"]
    assert model.chat_template == "{{ messages[0].content }}"
    assert str(model.source.path) == str(tmp_path / "weights")
    assert parse(load(tmp_path / "c.yaml").as_dict()).models["a"] == model


def test_a_configuration_does_not_change():
    configuration = load(MODELS)
    with pytest.raises(ValueError, match="frozen"):
        configuration.models["a"].sessions = 3  # type: ignore[misc]


@pytest.mark.parametrize("task", TASKS)
def test_the_packaged_vote_counts_what_the_zoo_calls_an_answer(task):
    pattern = build("agent_forest", load(ZOO).ensembles["zoo-forest"].options).options.answer
    for item in generate(task, 20, seed=1):
        assert extract(item.answer, pattern) == extract_answer(item.answer)


LINES = ZOO.read_text().split("\n")
JUNK = st.sampled_from(
    ["", "x", "  - y", "null", "  :", "[", "{a: [b]}", "12: 3", "  resources: {cpus: -1}", "&a *a", "\t"]
)


@given(at=st.integers(0, len(LINES) - 1), drop=st.integers(0, 3), junk=st.lists(JUNK, max_size=2))
def test_a_damaged_file_loads_or_is_refused_line_by_line(at, drop, junk):
    damaged = "\n".join([*LINES[:at], *junk, *LINES[at + drop :]])
    try:
        configuration = load(damaged + "\n")
    except ConfigurationError as error:
        count = damaged.count("\n") + 2
        for problem in error.message.split("\n"):
            name, line, message = problem.split(":", 2)
            assert name == "<text>" and 1 <= int(line) <= count and message.strip()
    else:
        assert parse(configuration.as_dict()) == configuration


@pytest.mark.parametrize("value", ["null", "3", "x", "[1]", "{}", "true", "2024-01-01", "{a: {b: [c]}}"])
@pytest.mark.parametrize(
    "path",
    [
        "models",
        "models.a",
        "models.a.source",
        "models.a.resources",
        "models.a.chat_template",
        "judges",
        "judges.j",
        "judges.j.options",
        "ensembles",
        "ensembles.e",
        "ensembles.e.members",
        "ensembles.e.options",
        "ensembles.e.caps",
        "ensembles.e.caps.options",
        "gateway",
        "name",
    ],
)
def test_values_of_any_kind_anywhere_are_read_or_refused_in_place(path, value):
    *above, key = path.split(".")
    data = yaml.safe_load(
        MODELS + "judges:\n  j: {kind: equalities, options: {}}\n"
        "ensembles:\n  e: {method: le_mcts, members: [a], judge: j, options: {}, caps: {options: {}}}\ngateway: {}\n"
    )
    at = data
    for part in above:
        at = at[part]
    at[key] = yaml.safe_load(value)
    try:
        load(yaml.safe_dump(data))
    except ConfigurationError as error:
        assert any(path in problem for problem in error.message.split("\n")) or path in (
            "models",
            "judges",
            "ensembles",
        )
