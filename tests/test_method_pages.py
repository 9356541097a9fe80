"""``docs/methods/`` says what methods, facts and figures say: pages are up to date, examples load."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config import ZOO, load
from cluster.plan import plan
from ensemble.before.routing.method import Routing
from ensemble.method import methods
from jobs.commands.fit import METHODS
from jobs.commands.fit import fit as fit_command
from tests.documents import ROOT, read, script

SCRIPTS = ROOT / "scripts"
pages, facts, classes = (script(f"method_{name}") for name in ("pages", "facts", "classes"))
KNOWN = pages.sources()
FITTED = [name for name, source in KNOWN.items() if source.facts.trained]
LOST: dict[str, Any] = {
    "on": "40 questions",
    "members": "a, b",
    "accuracy": 0.5,
    "best": "a",
    "best_accuracy": 0.75,
    "interval": [-38.0, -12.0],
    "command": "make figures",
}


def page(name: str, **changes: Any) -> str:
    """A page as it would be with other sources."""
    written: str = pages.page(KNOWN[name]._replace(**changes))
    return written


def test_the_program_finds_everything_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "method_pages.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_program_tells_what_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = pages.PAGES / "gac.md"
    monkeypatch.setattr(pages, "written", lambda: {stale: "of another day"})
    monkeypatch.setattr(sys, "argv", ["method_pages.py", "--check"])
    assert pages.main() == 1
    assert f"{stale.relative_to(ROOT)} is not up to date" in capsys.readouterr().out
    assert stale.read_text(encoding="utf-8") != "of another day"


def test_every_method_has_facts_and_nothing_else_has() -> None:
    ours = {name for name, method in methods().items() if method.__module__.startswith("ensemble.")}
    assert {path.stem for path in pages.FACTS.iterdir()} == ours == set(KNOWN)


def test_figures_are_of_methods_that_there_are() -> None:
    assert set(json.loads(pages.MEASURED.read_text(encoding="utf-8"))) <= set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_the_example_loads_and_runs_the_method(name: str) -> None:
    resolved = plan(load(KNOWN[name].facts.example))
    assert {ensemble["method"] for ensemble in resolved.ensembles.values()} == {name}


@pytest.mark.parametrize("name", KNOWN)
def test_each_option_says_what_it_means(name: str) -> None:
    assert [row[0] for row in classes.options(KNOWN[name].method) if not row[1]] == []


@pytest.mark.parametrize("name", KNOWN)
def test_all_caps_are_told(name: str) -> None:
    told = {row[0].strip("`"): row[3] for row in classes.options(KNOWN[name].method) if row[3]}
    assert told == {option: f"`{cap:g}`" for option, cap in KNOWN[name].method.caps.items()}


def test_the_table_of_performance_has_the_same_figures() -> None:
    _, _, section = read("docs/performance.md").partition("### Every token-level method")
    rows = re.findall(r"^\|[^|]*\| `(\w+)`[^|]*\| ([\d.]+) \| ([\d.]+) \|", section.partition("\n###")[0], re.MULTILINE)
    measured = {name: source.measured.efficiency for name, source in KNOWN.items() if source.measured}
    assert {name: f"{one} at 1, {eight} at 8" for name, one, eight in rows} == {
        name: efficiency.told for name, efficiency in measured.items() if efficiency
    }


@pytest.mark.parametrize("name", [name for name in KNOWN if KNOWN[name].measured])
def test_the_commands_that_measure_are_programs_that_know_the_method(name: str) -> None:
    for line in KNOWN[name].measured.commands:
        program, first, *options = shlex.split(line)
        assert program == "ensemble" or (program == "python" and (ROOT / first).is_file())
        assert "--methods" not in options or name in options


def test_the_methods_that_are_fitted_say_so() -> None:
    need = {name for name, cls in methods().items() if issubclass(cls, Routing) and cls.fitted}
    assert set(METHODS) | need <= set(FITTED)
    assert all(name in METHODS or issubclass(methods()[name], Routing) for name in FITTED)


@pytest.mark.parametrize("name", [name for name in FITTED if name not in METHODS])
def test_the_command_that_fits_a_router_is_one(name: str) -> None:
    """It parses; the example names its output."""
    told = KNOWN[name].facts
    command = shlex.split(told.fit)
    assert command[:3] == ["ensemble", "fit", name]
    given = fit_command.make_context("fit", command[2:]).params
    assert given["outcomes"] is not None
    paths = {str(e.options["path"]) for e in load(told.example).ensembles.values() if "path" in e.options}
    assert all(path.endswith(str(given["output"])) for path in paths)


@pytest.mark.parametrize("name", METHODS)
def test_the_command_that_fits_is_one(name: str) -> None:
    """It parses, has as many members as the fit takes and data if it needs some; the example names its output."""
    told = KNOWN[name].facts
    command = shlex.split(told.fit)
    assert command[:3] == ["ensemble", "fit", name]
    fit_command.make_context("fit", [*command[2:3], str(ZOO), *command[4:]])
    given = dict(zip(command[4::2], command[5::2], strict=True))
    fit, members = importlib.import_module(f"jobs.fitting.{name}"), given["--members"].split(",")
    assert len(members) >= fit.least and (fit.most is None or len(members) <= fit.most)
    assert ("--data" in given) == (fit.answer is not None)
    named = {str(head.path) for model in load(told.example).models.values() for head in model.heads.values()}
    assert named <= {f"{given['--output']}/{member}" for member in members}


def test_a_docstring_is_taken_apart() -> None:
    told = classes.described(
        "What.\n\nAsks of members: ``a``.\n\nMore.\n\nDepartures from the paper and its code:\n\n* None."
    )
    assert told == ("What.\n\nMore.", "`a`.", "* None.")
    assert classes.described("Only this.") == ("Only this.", "", "")
    assert classes.described("It.\n\nDepartures from the paper: one.").departures == "One."


def test_a_page_has_no_figure_that_nobody_measured() -> None:
    assert "## Measured" not in page("gac", measured=None)
    assert "## Measured" not in page("llm_router")


def test_routers_lead_to_where_they_are_compared() -> None:
    assert "(../routers.md#figures)" in page("knn_router")


def test_a_page_tells_figures_with_their_command() -> None:
    figures = {
        "quality": {**LOST, "accuracy": 0.96, "best_accuracy": 0.52, "interval": [38, 50]},
        "efficiency": {"on": "two cores", "ratio": {"8": 1.02, "1": 0.885}, "command": "make efficiency"},
    }
    text = page("gac", measured=facts.Measured.model_validate(figures))
    assert "**wins by 44.0 [+38.0, +50.0]**" in text
    assert "0.89 at 1, 1.02 at 8" in text and "```sh\nmake figures\nmake efficiency\n```" in text


def test_a_method_that_loses_says_why() -> None:
    with pytest.raises(ValidationError, match="needs `why`"):
        facts.Quality.model_validate(LOST)
    lost = facts.Quality.model_validate({**LOST, "why": "b is wrong with confidence."})
    text = page("gac", measured=facts.Measured(quality=lost))
    assert "**loses by 25.0 [-38.0, -12.0]**. B is wrong with confidence." in text


def test_an_interval_around_nothing_is_a_tie() -> None:
    assert facts.Quality.model_validate({**LOST, "interval": [-3, 2]}).verdict == "tie [-3.0, +2.0]"


@pytest.mark.parametrize("wrong", [{"qualty": {}}, {"quality": None}, {}])
def test_figures_that_nobody_can_read_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        facts.Measured.model_validate(wrong)


@pytest.mark.parametrize("changes", [{"fit": ""}, {"trained": ""}])
def test_what_is_fitted_comes_with_its_command(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="belong together"):
        facts.Facts.model_validate({**KNOWN["eva"].facts.model_dump(), **changes})


@pytest.mark.parametrize("name", KNOWN)
def test_a_table_is_whole_on_every_page(name: str) -> None:
    """A cell with a bar of its own would shift those behind it."""
    for table in re.findall(r"(?:^\|.*\n)+", page(name), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
