"""What is to be tuned, and the ensembles and candidates that come of it.

Candidates that differ in options are requests to one ensemble; an ensemble that the configuration lacks is added to it
for the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import Configuration, parse
from ensemble.errors import BadRequest, ConfigurationError
from jobs.evaluation.candidates import NAME, Candidate, grid_of, points, simplex, subsets, weighted
from jobs.evaluation.options import canonical
from jobs.evaluation.service import Known, of_configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be tuned."""

    method: str
    members: tuple[str, ...]
    options: Mapping[str, Any]
    """The same for all candidates."""
    grid: Mapping[str, Sequence[Any]]
    """Values to try, by option."""
    steps: int
    """Weights are multiples of one over this."""
    judge: str | None = None


def prepared(there: Known, wish: Wish) -> tuple[Known, list[Candidate]]:
    """What is asked: an ensemble that is there already, or one that is added; and all candidates.

    Raises:
        BadRequest: a running service has no such ensemble.
        ConfigurationError: the method, the members and the judge do not fit together.
    """
    there.require(wish.members)
    grid = {key: values for key, values in wish.grid.items() if key != "weights" or not weighted(wish.method)}
    shares: list[dict[str, Any]] = [{}]
    if not weighted(wish.method):
        there, names = _added(there, wish, list(subsets(wish.members)))
    else:
        there, names = _found(there, wish)
        if "weights" not in wish.options:
            vectors = wish.grid.get("weights") or [list(v) for v in simplex(len(wish.members), wish.steps)]
            shares = [{"weights": vector} for vector in vectors]
    return there, [
        Candidate(name, there.names[name].members, canonical({**wish.options, **share, **point}))
        for name in names
        for share in shares
        for point in points(grid)
    ]


def _found(there: Known, wish: Wish) -> tuple[Known, list[str]]:
    """An ensemble of this method over these members, in whatever order; added where there is none."""
    for name, listed in there.names.items():
        same = listed.method == wish.method and sorted(listed.members) == sorted(wish.members)
        if same and wish.judge in (None, _judge(there, name)):
            return there, [name]
    return _added(there, wish, [wish.members])


def _judge(there: Known, name: str) -> str | None:
    return there.configuration.ensembles[name].judge if there.configuration else None


def _added(there: Known, wish: Wish, sets: Sequence[tuple[str, ...]]) -> tuple[Known, list[str]]:
    if there.configuration is None:
        over = ", ".join(wish.members)
        raise BadRequest(f"the service has no ensemble of {wish.method} over {over}; give a configuration file")
    data = there.configuration.as_dict()
    entries = data.setdefault("ensembles", {})
    taken = {*there.names}
    names: list[str] = []
    first = {key: values[0] for key, values in wish.grid.items() if key != "weights"}
    shared = {"method": wish.method, "options": {**wish.options, **first}}
    shared |= {"judge": wish.judge} if wish.judge else {}
    for members in sets:
        names.append(next(name for name in _names() if name not in taken))
        taken.add(names[-1])
        entries[names[-1]] = {**shared, "members": list(members)}
    return of_configuration(parse(data)), names


def _names() -> Iterator[str]:
    yield NAME
    number = 2
    while True:
        yield f"{NAME}-{number}"
        number += 1


def wished(given: Mapping[str, Any], members: tuple[str, ...], options: Mapping[str, Any]) -> Wish:
    """From the command line.

    Raises:
        BadRequest: an option is both given and tried, or there are not two members.
    """
    grid = grid_of(given["grid"])
    if twice := sorted(set(grid) & set(options)):
        raise BadRequest(f"{', '.join(twice)}: either --option or --grid, not both", param=twice[0])
    if len(members) < 2:
        raise BadRequest("give at least two members to choose among", param="members")
    return Wish(
        method=given["method"],
        members=members,
        options=options,
        grid=grid,
        steps=given["steps"],
        judge=given["judge"],
    )


def applicable(candidates: Sequence[Candidate], configuration: Configuration, wish: Wish) -> list[Candidate]:
    """Those whose options the method takes with these members, as far as can be known before anything is started.

    Raises:
        BadRequest: a value that was wished for is refused in every combination; the message is the method's own.
    """
    kept: list[Candidate] = []
    refused: dict[tuple[str, str], str] = {}
    for candidate in candidates:
        try:
            with_options(configuration, candidate)
            kept.append(candidate)
        except ConfigurationError as error:
            refused |= {part: error.message for part in _parts(candidate) if part not in refused}
    good = {part for candidate in kept for part in _parts(candidate)}
    for part, message in refused.items():
        # Weights of the simplex are nobody's wish: those that do not go with an option are left out.
        if part not in good and (not kept or part[0] in {*wish.grid, *wish.options}):
            raise BadRequest(f"no candidate with {'='.join(part)} can be used: {message}", param=part[0])
    return kept


def _parts(candidate: Candidate) -> list[tuple[str, str]]:
    return [(key, json.dumps(value)) for key, value in candidate.given.items()]


def with_options(configuration: Configuration, candidate: Candidate) -> Configuration:
    """The configuration with the candidate's options in its ensemble.

    Raises:
        ConfigurationError: they do not fit.
    """
    data = configuration.as_dict()
    entry = data["ensembles"][candidate.ensemble]
    entry["options"] = {**entry.get("options", {}), **candidate.given}
    return parse(data)
