"""Documents do not rot: what they name is there, their commands parse, their configurations load.

What is run, and what it prints, is the business of ``test_readme.py``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import click
import httpx
import pytest

from cluster.cli import main
from cluster.config import load
from cluster.plan import plan
from deployments.api.feedback import FeedbackBody
from deployments.api.wire import parse
from deployments.engines.engine import Engine, EngineMember
from deployments.engines.loading import start
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from deployments.gateway import Served, build_app
from ensemble import Ensemble
from ensemble.before.routing.method import Routing, RoutingOptions
from tests.documents import DOCUMENTS, ROOT, Block, blocks, read, script

FOLDERS = ("ensemble", "deployments", "cluster", "jobs", "benchmarks", "examples", "scripts", "tests")
OTHERS = {"--hypothesis-profile"}
"""Options of programs that are not ours."""
FOREIGN = {
    "_answers/",
    "_journal/",
    "_judged/",
    "_manifest.json",
    "chosen.yaml",
    "mine.yaml",
    "organisation/name",
    "2401/2",
}
"""Names that look like files of this repository: what our commands and their users write, and a fraction."""
CONFIGURATIONS = {f"{name}-{n}": block for name in DOCUMENTS for n, block in enumerate(blocks(name, "yaml"))}


@cache
def sources() -> dict[str, str]:
    """Every Python file and its text."""
    found = chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS)
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def commands(document: str) -> Iterator[list[str]]:
    """What is typed in a document, by words: blocks of shell, and code within the text."""
    shell = [block.code.replace("\\\n", " ") for block in blocks(document, "sh", "bash", "console", "")]
    for line in chain.from_iterable(code.splitlines() for code in shell):
        yield shlex.split(line.removeprefix("$ "), comments=True) if line.count("'") % 2 == 0 else []


def sub_command(words: Sequence[str]) -> tuple[click.Command, click.Context, list[str]]:
    """A command of ``ensemble`` with what is given to it."""
    command: click.Command = main
    context, rest = click.Context(main, info_name="ensemble"), list(words)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no command {rest[0]}"
        command, context, rest = found, click.Context(found, parent=context), rest[1:]
    return command, context, rest


def headings(document: Path) -> set[str]:
    """What a page's headings are linked by."""
    anchor = script("configuration_page").anchor
    return {anchor(title) for title in re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    here = ROOT / document
    lost = []
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", read(document)):
        target = (here.parent / path).resolve() if path else here
        if not target.exists() or (anchor and anchor not in headings(target)):
            lost.append(f"{path}#{anchor}")
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_are_there(document: str) -> None:
    """By the end of their paths, as pages that are about a folder leave its name out."""
    named = set(re.findall(r"`([\w/]*\w+\.(?:py|yaml|toml|json)|\w+/[\w/]*)`", read(document)))
    folders = [ROOT / folder for folder in (*FOLDERS, "docs", "k8s")]
    there = {path.relative_to(ROOT).as_posix() for folder in folders for path in (folder, *folder.rglob("*"))}
    there |= {path.name for path in ROOT.iterdir()}
    assert {
        name for name in named - FOREIGN if not any(f"/{path}".endswith(f"/{name.strip('/')}") for path in there)
    } == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_parse(document: str) -> None:
    for words in commands(document):
        if words[:1] != ["ensemble"]:
            continue
        command, context, given = sub_command(words[1:])
        values, left, _ = command.make_parser(context).parse_args(given)
        assert left == [], words
        for option in command.params:
            assert not option.required or option.name in values, (words, option.name)
            if option.name in values and not isinstance(option.type, click.Path):
                option.type_cast_value(context, values[option.name])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_programs_have_the_options_that_they_are_given(document: str) -> None:
    for words in commands(document):
        if words[:1] == ["make"]:
            assert words[1] in targets(), words
        if words[:1] == ["python"] and words[1].endswith(".py"):
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert {option for option in given if f'"{option}"' not in sources()[words[1]]} == set(), words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_named_in_the_text_are_there(document: str) -> None:
    named = set(re.findall(r"(?<![\w-])(--[a-z][\w-]+)", read(document)))
    code = "\n".join(text for path, text in sources().items() if not path.startswith("tests/"))
    assert {option for option in named - OTHERS if f'"{option}"' not in code} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_and_names_in_the_text_are_there(document: str) -> None:
    text = read(document)
    assert set(re.findall(r"`make ([\w-]+)", text)) <= targets()
    code = "\n".join(sources().values())
    classes = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)[(`.]", text))
    assert {name for name in classes if not re.search(rf"\b{name}\b", code)} == set()


@pytest.mark.parametrize("block", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configurations_load(block: Block) -> None:
    assert plan(load(block.code)).deployments


def test_feedback_in_the_documents_is_understood() -> None:
    posted = re.findall(r"^POST /v1/feedback (\{.*\})$", read("docs/routing.md"), re.MULTILINE)
    assert len(posted) >= 3
    for body in posted:
        parse(FeedbackBody, json.loads(body)).given()


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    started = [await start(ModelSettings(name=name, source=ZooSource(zoo=name))) for name in ("adder", "words")]
    yield (found := [engine for one in started for engine in one.values()])
    for engine in found:
        await engine.shut()


async def test_the_reply_in_the_documents_is_the_reply_to_the_request(engines: list[Engine]) -> None:
    """But for its number and its time."""
    request, reply = (json.loads(block.code) for block in blocks("docs/api.md", "json"))
    app = build_app({"zoo-gac": Served.of(Ensemble("zoo-gac", "gac", [EngineMember(engine) for engine in engines]))})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = (await client.post("/v1/chat/completions", json=request)).raise_for_status().json()
    assert {**answer, "id": reply["id"], "created": reply["created"]} == reply


async def test_every_number_of_an_engine_is_told(engines: list[Engine]) -> None:
    told = set(re.findall(r"`(?:ensemble_|…_)(\w+?)(?:_total)?`", read("docs/api.md")))
    names = {name.removeprefix("billed_") if name != "billed_calls" else name for name in engines[0].stats()}
    assert names - told == set()


def test_every_error_that_reaches_a_client_is_told() -> None:
    texts = [text for path, text in sources().items() if path.startswith(("ensemble/", "deployments/"))]
    codes = {
        code for text in texts for code in re.findall(r'^    code(?:: ClassVar\[str\])? = "(\w+)"$', text, re.MULTILINE)
    }
    assert len(codes) > 15
    # Those of configurations are told on the command line.
    of_files = {"configuration_error", "missing_capability"}
    assert {code for code in codes - of_files if f"`{code}`" not in read("docs/api.md")} == set()


def test_what_a_request_may_bring_to_a_router_is_told() -> None:
    (told,) = re.findall(r"A request may bring (.*?) in its `ensemble` object", read("docs/routing.md"))
    assert set(re.findall(r"`(\w+)`", told)) == set(RoutingOptions.model_fields) - set(Routing.fixed)


def test_every_page_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", read("README.md")))
    assert linked >= {name for name in DOCUMENTS if re.fullmatch(r"docs/[\w.]+", name)}
