"""``ensemble fit``: what a method learns from a configuration's models, as artifacts that a configuration can name."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from click.core import ParameterSource

from cluster.commands.common import Failed, interruptible, options_of
from cluster.commands.configuration import Refused, loaded
from cluster.config import ZOO
from ensemble.errors import BadRequest, ConfigurationError, EnsembleError

if TYPE_CHECKING:
    from cluster.config import Configuration
    from ensemble.artifacts import Artifact
    from jobs.evaluation.questions import Question
    from jobs.fitting.fit import Fit, Told

METHODS = ("citer", "deepen", "etr", "eva", "packllm")
"""Methods that learn from models, as routers do not; each has a module of ``jobs.fitting``."""


ASKED = ("question", "answer", "grade_name")
"""Options that say how --data is read."""
TOKEN_LEVEL = ("data", *ASKED)
"""Options of those alone."""
ROUTERS = ("outcomes", "routers", "encoder", "policy", "share", "budget", "drop", "feedback", "add_member", "source")
"""Options of routers alone."""
KNOBS = ("share", "budget", "drop")
"""Of those, what a policy is set to keep."""
REFITS = ("policy", "encoder", "members", "split", "seed", "options", "routers", "feedback")
"""Options of routers that say something of a fit, which a new member does without."""


@click.command()
@click.argument("method", required=False, metavar="[METHOD")
@click.argument("file", default=ZOO, type=click.Path(path_type=Path), metavar="[CONFIG]]")
@click.option("--members", metavar="NAMES", help="Models, with commas, in the order the method says.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the artifacts.")
@click.option("--data", type=click.Path(path_type=Path), help=".parquet, .jsonl, .jsonl.gz or .csv.")
@click.option("--question", default="question", show_default=True, metavar="COLUMN", help="Column with questions.")
@click.option("--answer", metavar="COLUMN", help="Omitted: `answer`; for etr and packllm `expert`, who should answer.")
@click.option("--grade", "grade_name", default="exact", show_default=True, help="When an answer is right.")
@click.option("--split", type=click.FloatRange(0, 1), help="Part that is fitted to. Omitted: 0.8.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Draws that part.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the fit; repeatable.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Of routers: outcome table, a file or a folder.")
@click.option("--routers", metavar="NAMES", help="Fit these routers, or `all`, in the place of METHOD.")
@click.option("--encoder", metavar="NAME", help="Of routers: tfidf, features, or one of CONFIG. Omitted: tfidf.")
@click.option("--policy", metavar="YAML", help="Of routers: '{kind: utility, price: 2}'. Omitted: the method's own.")
@click.option("--share", type=float, help="Set the policy: part of the traffic that the strong member answers.")
@click.option("--budget", type=float, help="Set the policy: money for a query, on average.")
@click.option("--drop", type=float, help="Set the policy: part of the best member's quality that may be lost.")
@click.option("--feedback", type=click.IntRange(min=1), metavar="N", help="Last piece of feedback in --outcomes.")
@click.option("--add-member", metavar="NAME", help="Learn one more member from few outcomes, without a fit.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Of --add-member: folder of the router.")
@click.pass_context
def fit(context: click.Context, /, method: str | None, file: Path, **given: Any) -> None:
    """Fit what METHOD learns from models of a configuration CONFIG, or a router to an outcome table, and say how the
    configuration names it.

    \b
    eva     members: the pivot, then its helpers; no data
    deepen  members: all; no data
    citer   members: small, large; data: questions and reference answers
    etr     members: the generalist, then its experts; data: questions and who should answer them
    packllm members: all; data: questions and who should answer them
    ROUTER  any method before inference; --outcomes; members: those of the table that it chooses from (omitted: all)

    Without CONFIG the packaged miniature models are fitted to. A fit that was stopped goes on where it was when the
    same command is given again. A router is fitted to a part of the queries (--split; omitted: the table's own parts
    train and test, or 0.8), and is compared on the others with the best single member, chance and an oracle; etr and
    packllm tell how well they do on the others; citer keeps tokens apart instead (--option held_out). Exit status 2 if
    it is refused, 1 if it could not go on, 130 if it was interrupted.
    """
    if given["routers"] is not None:
        if method is not None and context.get_parameter_source("file") is not ParameterSource.DEFAULT:
            raise click.UsageError("--routers stands in the place of METHOD; leave one out")
        method, file = None, file if method is None else Path(method)
    elif method is None:
        raise click.UsageError("name a METHOD, or --routers")
    if method in METHODS:
        _token_level(context, method, file, given)
    else:
        _routers(context, method, file, given)


def _token_level(context: click.Context, method: str, file: Path, given: Mapping[str, Any]) -> None:
    _only(context, method, *ROUTERS)
    if given["members"] is None:
        raise click.UsageError(f"{method} needs --members")
    fitting = _fit(method)
    _only(context, method, *(ASKED if fitting.answer is None else ()), *(() if fitting.compares else ("split",)))
    configuration, share = loaded(file), given["split"]
    if share is None:
        share = 0.8 if fitting.compares else 0.0
    names = tuple(name.strip() for name in given["members"].split(",") if name.strip())
    with _told(), interruptible():
        artifacts = run(method, configuration, names, {**given, "split": share})
    for member, artifact in artifacts.items():
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(artifact.manifest.metrics.items()))
        click.echo(f"{given['output'] / member}" + (f": {figures}" if figures else ""))
    click.echo(snippet(method, given["output"], artifacts))


def _routers(context: click.Context, method: str | None, file: Path, given: Mapping[str, Any]) -> None:
    with _told(), interruptible():
        # Takes seconds to import.
        from jobs.fitting import routing

        named = routing.named(method, given["routers"], METHODS)
        _only(context, method or "routers", *TOKEN_LEVEL)
        if given["outcomes"] is None:
            raise click.UsageError("routers are fitted to --outcomes")
        if given["add_member"] is not None:
            _only(context, "--add-member", *KNOBS, *REFITS)
            routing.add(named, file, given)
        elif given["source"] is not None:
            raise click.UsageError("--from goes with --add-member")
        else:
            routing.fit(named, file, given)


def _only(context: click.Context, what: str, *inapplicable: str) -> None:
    """Refuse options that say nothing of what is done.

    Raises:
        UsageError: naming them.
    """
    default = ParameterSource.DEFAULT
    spelled = {option.name: option.opts[-1] for option in context.command.params}
    if wrong := [spelled[name] for name in inapplicable if context.get_parameter_source(name) is not default]:
        raise click.UsageError(f"{', '.join(wrong)}: nothing that a fit of {what} takes")


def run(
    method: str, configuration: Configuration, names: Sequence[str], given: Mapping[str, Any]
) -> Mapping[str, Artifact]:
    """Fit, and save what was fitted below the output folder, by member.

    Raises:
        BadRequest: the members, the data or an option cannot be used.
        ConfigurationError: a model cannot be loaded.
    """
    from ensemble.artifacts import save
    from jobs.fitting.fit import options_for

    fitting = _fit(method)
    _check(fitting, method, names, given["data"])
    options = options_for(fitting, method, options_of(given["options"]))
    artifacts = asyncio.run(_fitted(fitting, configuration, names, options, given))
    for member, artifact in artifacts.items():
        save(given["output"] / member, *artifact)
    return artifacts


async def _fitted(
    fitting: Fit, configuration: Configuration, names: Sequence[str], options: Any, given: Mapping[str, Any]
) -> Mapping[str, Artifact]:
    from dataclasses import asdict

    from jobs.evaluation.grading import grade
    from jobs.fitting.fit import Task
    from jobs.fitting.models import opened
    from jobs.fitting.stages import Stages

    questions, digest, notion = _questions(fitting, given), "", grade(given["grade_name"])
    if given["data"] is not None:
        digest = hashlib.sha256(given["data"].read_bytes()).hexdigest()[:16]
    sources = {name: configuration.models[name].source for name in names if name in configuration.models}
    identity = {"members": list(names), "sources": sources, "data": digest, "options": asdict(options)}
    identity |= {key: given[key] for key in ("question", "answer", "grade_name", "split", "seed")}
    stages = Stages(given["output"], identity)
    async with opened(configuration, names) as models:
        with _shown() as told:
            task = Task(
                models=models,
                options=options,
                questions=questions,
                data=digest,
                grade=notion,
                stages=stages,
                told=told,
            )
            return await fitting.run(task)


def _fit(method: str) -> Fit:
    from importlib import import_module

    found: Fit = import_module(f"jobs.fitting.{method}")
    return found


def _check(fitting: Fit, method: str, names: Sequence[str], data: Path | None) -> None:
    if len(names) < fitting.least or (fitting.most is not None and len(names) > fitting.most):
        count = f"{fitting.least} members" if fitting.least == fitting.most else f"at least {fitting.least} members"
        raise BadRequest(f"{method} is fitted to {count}: {fitting.members}", param="members")
    if len(set(names)) < len(names):
        raise BadRequest("a member is named twice; allowed: each once", param="members")
    if (data is None) != (fitting.answer is None):
        rule = "needs --data" if data is None else "needs no data; leave --data out"
        raise BadRequest(f"the fit of {method} {rule}", param="data")


def _questions(fitting: Fit, given: Mapping[str, Any]) -> list[Question]:
    from jobs.evaluation.grading import grade
    from jobs.evaluation.questions import Columns, read

    if fitting.answer is None:
        return []
    columns = Columns(given["question"], given["answer"] or fitting.answer)
    return read(given["data"], columns, grade(given["grade_name"]), share=given["split"], seed=given["seed"])


@contextmanager
def _shown() -> Iterator[Told]:
    from jobs.progress import Display
    from jobs.recorder import Counts

    displays: dict[str, Display] = {}

    def told(what: str, done: int, of: int) -> None:
        if what not in displays:
            for display in displays.values():
                display.__exit__(None, None, None)
            displays[what] = Display(unit=what).__enter__()
        displays[what](Counts(rows=of, done=done, failed=0))

    try:
        yield told
    finally:
        for display in displays.values():
            display.__exit__(None, None, None)


@contextmanager
def _told() -> Iterator[None]:
    """Errors as exit statuses."""
    try:
        yield
    except BadRequest as error:
        raise Refused(error.message) from error
    except (EnsembleError, ConfigurationError) as error:
        raise Failed(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from there", err=True)
        raise SystemExit(130) from None


def snippet(method: str, output: Path, artifacts: Mapping[str, Artifact]) -> str:
    """What to add to a configuration file so that what was fitted is used."""
    if "options" in artifacts:
        entry = {"method": method, **artifacts["options"].manifest.settings}
        return str(yaml.safe_dump({"ensembles": {method: entry}}, sort_keys=False)).rstrip()
    models = {
        member: {"heads": {method: {"kind": artifact.manifest.kind, "path": str((output / member).resolve())}}}
        for member, artifact in artifacts.items()
    }
    return str(yaml.safe_dump({"models": models}, sort_keys=False)).rstrip()
