"""The best joint moves: one token each for those who are not stalled, such that all texts begin the longest of them.

Who has the longest text decides what the others may write: tokens that begin it. So moves are sought text by text, best
first within each, and no combination that disagrees is ever looked at. The scores are those of the search over the
whole cross product (arXiv 2502.21265), and so is what is found; lists that might hold back a better move are named.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from ensemble.during.token.agreement.items import STOP_ID, Item
from ensemble.during.token.agreement.listing import Listing

_FIRST = 16
"""Tokens of each list that are looked at first."""

Listings = Sequence[Mapping[int, Listing]]
"""For each item, the listings of its moving seats."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    moves: list[tuple[float, Item]]
    """Scores and items, best first."""
    short: list[tuple[int, int]]
    """Numbers of items, and seats whose lists may hold back something better."""


@dataclass(frozen=True, slots=True)
class Option:
    """One seat's part in a move."""

    value: float
    """Its part in the score."""
    text: bytes
    """What its writer has then written, from where the shortest track ends."""
    step: tuple[int, bytes, float] | None
    """Id, bytes and log-probability; ``None`` for a seat that is stalled."""


def search(items: Sequence[Item], listings: Listings, weights: Sequence[float], width: int, least: float) -> Found:
    """The best moves of all items together.

    Args:
        weights: by seat, summing to 1.
        width: moves wanted.
        least: only moves that score more are of use.
    """
    # Most steps are decided by the first few tokens of each list, and looking at few takes a fraction of the time.
    first = [{seat: listing.first(_FIRST) for seat, listing in listed.items()} for listed in listings]
    found = _search(items, first, weights, width, least, ties=True)
    return _search(items, listings, weights, width, least) if found.short else found


def _search(
    items: Sequence[Item],
    listings: Listings,
    weights: Sequence[float],
    width: int,
    least: float,
    *,
    ties: bool = False,
) -> Found:
    """``search``; with ``ties`` lists that may hold back a move as good as the last are short as well."""
    tables = [
        [_options(item, seat, listed.get(seat), weights[seat]) for seat in range(len(weights))]
        for item, listed in zip(items, listings, strict=True)
    ]
    runs = [_moves(item, table) for item, table in zip(items, tables, strict=True)]
    ranked = heapq.merge(*runs, key=lambda move: (-move[0], move[1].text))
    moves = list(islice(_distinct(takewhile(lambda move: move[0] > least, ranked)), width))
    bar = moves[-1][0] if len(moves) == width else least
    if ties:
        bar = math.nextafter(bar, -math.inf)
    short = [
        (number, seat)
        for number, (item, listed) in enumerate(zip(items, listings, strict=True))
        for seat in listed
        if _bound(item, seat, tables[number], listed, weights) > bar
    ]
    return Found(moves, short)


def _distinct(moves: Iterator[tuple[float, Item]]) -> Iterator[tuple[float, Item]]:
    seen: set[tuple[object, ...]] = set()
    for score, item in moves:
        key = tuple((track.ids, track.ended) for track in item.tracks)
        if key not in seen:
            seen.add(key)
            yield score, item


def _options(item: Item, seat: int, listing: Listing | None, weight: float) -> list[Option]:
    """What a seat may do, best first; what contradicts the item's text is left out."""
    track = item.tracks[seat]
    begun = track.text[min(len(other.text) for other in item.tracks) :]
    if listing is None:
        return [Option(weight * track.mean, begun, None)]
    postfix, level = item.postfix(seat), item.level
    return [
        Option(weight * track.after(p), begun + text, (i, text, p))
        for i, text, p in zip(listing.ids, listing.texts, listing.logprobs, strict=True)
        if (level if i == STOP_ID else text.startswith(postfix) or postfix.startswith(text))
    ]


def _bound(
    item: Item, seat: int, table: Sequence[Sequence[Option]], listed: Mapping[int, Listing], weights: Sequence[float]
) -> float:
    """The most that a move may score in which a seat writes what it has not listed."""
    values = []
    for other, (weight, options) in enumerate(zip(weights, table, strict=True)):
        floor = weight * item.tracks[other].after(listed[other].floor) if other in listed else -math.inf
        values.append(floor if other == seat else max(floor, options[0].value if options else -math.inf))
    return math.fsum(values) if min(values) > -math.inf else -math.inf


def _moves(item: Item, table: Sequence[Sequence[Option]]) -> Iterator[tuple[float, Item]]:
    """All joint moves of an item, best first; among equals the stop, then the smaller text."""
    stops = [[o for o in options if o.step is not None and o.step[0] == STOP_ID] for options in table]
    written = [[o for o in options if o.step is None or o.step[0] != STOP_ID] for options in table]
    for score, chosen in _ranked(best_first(stops), [_by_text(options) for options in written]):
        yield score, item.moved({seat: o.step for seat, o in enumerate(chosen) if o.step is not None})


Move = tuple[float, list[Option]]


def _ranked(stops: Iterator[Move], by_text: Sequence[Mapping[bytes, list[Option]]]) -> Iterator[Move]:
    """Moves of all texts together; those of a text are looked at when nothing else can be better."""
    runs: dict[bytes, Iterator[Move]] = {b"": stops}
    heap: list[tuple[float, bool, bytes, list[Option]]] = [(-m[0], True, b"", m[1]) for m in islice(stops, 1)]
    if all(by_text):
        heap += [(-bound, False, text, []) for text, bound in _bounds(by_text).items()]
    heapq.heapify(heap)
    while heap:
        score, real, text, chosen = heapq.heappop(heap)
        if real:
            yield -score, chosen
        else:
            runs[text] = _agreeing(text, by_text)
        for move in islice(runs[text], 1):
            heapq.heappush(heap, (-move[0], True, text, move[1]))


def _bounds(by_text: Sequence[Mapping[bytes, list[Option]]]) -> dict[bytes, float]:
    """What a move with each text as its longest may score at most."""
    best = [max(options[0].value for options in texts.values()) for texts in by_text]
    bounds: dict[bytes, float] = {}
    for seat, texts in enumerate(by_text):
        for text, options in texts.items():
            bound = math.fsum([*best[:seat], options[0].value, *best[seat + 1 :]])
            bounds[text] = max(bound, bounds.get(text, -math.inf))
    return bounds


def _by_text(options: Sequence[Option]) -> dict[bytes, list[Option]]:
    found: dict[bytes, list[Option]] = {}
    for option in options:
        found.setdefault(option.text, []).append(option)
    return found


def _agreeing(longest: bytes, by_text: Sequence[Mapping[bytes, list[Option]]]) -> Iterator[Move]:
    """Joint moves whose longest text is this one, best first."""
    beginnings = [longest[:length] for length in range(len(longest) + 1)]
    options = [[o for text in beginnings for o in texts.get(text, ())] for texts in by_text]
    for ranked in options:
        ranked.sort(key=lambda option: -option.value)
    return (move for move in best_first(options) if any(o.text == longest for o in move[1]))


def best_first(options: Sequence[Sequence[Option]]) -> Iterator[Move]:
    """One option of each list, all combinations, by falling sum of values.

    Args:
        options: best first each.
    """
    if not all(options):
        return
    begin = (0,) * len(options)
    heap, seen = [(-_sum(options, begin), begin)], {begin}
    while heap:
        score, places = heapq.heappop(heap)
        yield -score, [ranked[at] for ranked, at in zip(options, places, strict=True)]
        for list_, at in enumerate(places):
            after = (*places[:list_], at + 1, *places[list_ + 1 :])
            if at + 1 < len(options[list_]) and after not in seen:
                seen.add(after)
                heapq.heappush(heap, (-_sum(options, after), after))


def _sum(options: Sequence[Sequence[Option]], places: Sequence[int]) -> float:
    return math.fsum(ranked[at].value for ranked, at in zip(options, places, strict=True))
