"""Heads for toy members, and the plain rules of the methods that read them, over whole vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from token_toys import Toy

from ensemble.distributions import log_softmax
from ensemble.ensemble import Ensemble
from ensemble.fitting.deepen import DeepenFit, relative
from ensemble.fitting.models import ModelArrays, shared_ids
from ensemble.heads import Head
from ensemble.heads.projection import Projection
from ensemble.heads.relative import Relative
from ensemble.heads.search import Search
from ensemble.member import Floats
from ensemble.testing import LocalMember
from ensemble.vocabulary import Vocabulary


def eva(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "eva", members, options=options)


def deepen(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "deepen", members, options=options)


def projecting(member: LocalMember, dense: Floats, pivot: LocalMember, *, name: str = "eva", topk: int = 320) -> None:
    """Give a member a projection into the pivot's vocabulary; ``dense``: shape [V, P]."""
    ids = torch.arange(dense.shape[1]).expand(dense.shape)
    space = pivot.tokeniser.vocabulary.fingerprint
    _put(member, name, Projection(ids, torch.tensor(dense).float(), dense.shape[1], topk, space))


def representing(member: LocalMember, rows: Floats, space: str = "space", name: str = "deepen") -> None:
    """Give a member a relative representation."""
    stops = torch.tensor(sorted(member.tokeniser.vocabulary.stop_ids))
    _put(member, name, Relative(torch.tensor(rows).float(), stops, space))


def _put(member: LocalMember, name: str, head: Head) -> None:
    member.heads = {**member.heads, name: head}
    member.card = replace(member.card, heads={n: h.card for n, h in member.heads.items()})


def matrix(helper: Vocabulary, pivot: Vocabulary, seed: int, *, softness: float = 0.2) -> Floats:
    """Rows that sum to 1: a token's twin has most of one, and some others a little; a foreign token's are random."""
    rng = np.random.default_rng(seed)
    text = [i for i, token in enumerate(pivot.tokens) if token]
    dense = np.zeros((helper.size, pivot.size))
    for i, token in enumerate(helper.tokens):
        if i in helper.stop_ids:
            dense[i, sorted(pivot.stop_ids)] = 1 / len(pivot.stop_ids)
        elif token:
            dense[i, rng.choice(text, 3, replace=False)] = softness / 3
            dense[i, pivot.tokens.index(token) if token in pivot.tokens else rng.choice(text)] += 1 - softness
    return dense


def projected_greedy(
    members: Sequence[Toy], dense: Mapping[int, Floats], prompt: bytes, steps: int, *, drop: int, topk: int = 320
) -> bytes:
    """EVA's answer: the first member is the pivot, ``dense`` the helpers' matrices; all weights equal."""
    vocabulary, answer = members[0].tokeniser.vocabulary, b""
    for _ in range(steps):
        rows = [_shares(member.after(prompt + answer), topk) for member in members]
        rows = [row @ dense[i] if i else row for i, row in enumerate(rows)]
        best = _elected(vocabulary, rows, drop)
        if not best:
            break
        answer += best
    return answer


def _shares(logprobs: Floats, topk: int) -> Floats:
    kept = np.argsort(-logprobs, kind="stable")[:topk]
    chances = np.zeros(len(logprobs))
    chances[kept] = np.exp(logprobs[kept])
    return chances / chances.sum()


def _elected(vocabulary: Vocabulary, rows: Sequence[Floats], drop: int) -> bytes:
    def said(row: Floats) -> list[bytes]:
        order = [i for i in np.argsort(-row, kind="stable") if vocabulary.writable[i] and row[i] > 0]
        return [vocabulary.tokens[i] for i in order[:drop]]

    lists = [said(row) for row in rows]
    agree = [i for i, own in enumerate(lists) if own and any(own[0] in o for j, o in enumerate(lists) if j != i)]
    kept = [rows[i] for i in agree or range(len(rows))] if drop else rows
    mean = sum(kept) / len(kept)
    masses: dict[bytes, float] = {}
    for i in np.flatnonzero(vocabulary.writable):
        masses[vocabulary.tokens[i]] = masses.get(vocabulary.tokens[i], 0.0) + float(mean[i])
    return max(sorted(masses), key=lambda token: masses[token])


def relatives(members: Sequence[LocalMember], seed: int = 0, temperature: float = 20.0) -> list[Floats]:
    """R of each member, over random embeddings in which equal bytes have equal vectors up to a turn."""
    rng, vectors = np.random.default_rng(seed), {}
    arrays = []
    for member in members:
        vocabulary = member.tokeniser.vocabulary
        rows = [vectors.setdefault(token or i, rng.normal(size=6)) for i, token in enumerate(vocabulary.tokens)]
        turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
        arrays.append(ModelArrays(member.name, vocabulary, np.array(rows) @ turn, np.array(rows) @ turn))
    anchors = shared_ids(arrays)
    fit = DeepenFit(temperature=temperature)
    return [relative(a.input_embeddings, ids, fit) for a, ids in zip(arrays, anchors, strict=True)]


def searched_greedy(
    members: Sequence[Toy],
    rows: Sequence[Floats],
    weights: Sequence[float],
    prompt: bytes,
    steps: int,
    *,
    main: int = 0,
    rate: float = 0.15,
    turns: int = 5,
) -> bytes:
    """DeePEn's answer by ``Search`` over whole distributions."""
    vocabulary, answer = members[main].tokeniser.vocabulary, b""
    for _ in range(steps):
        logprobs = [member.after(prompt + answer) for member in members]
        mean = sum(w * np.exp(p) @ r for w, p, r in zip(weights, logprobs, rows, strict=True))
        found = log_softmax(_search(rows[main], logprobs[main], np.asarray(mean), rate, turns))
        if int(logprobs[main].argmax()) in vocabulary.stop_ids:
            break
        masses: dict[bytes, float] = {}
        for i in np.flatnonzero(vocabulary.writable):
            masses[vocabulary.tokens[i]] = masses.get(vocabulary.tokens[i], 0.0) + float(np.exp(found[i]))
        best = max(sorted(masses), key=lambda token: masses[token])
        if not best:
            break
        answer += best
    return answer


def _search(rows: Floats, start: Floats, target: Floats, rate: float, turns: int) -> Floats:
    def told(values: object) -> torch.Tensor:
        return torch.tensor(values)

    search = Search(
        told(rows).float(),
        told(start).float()[None],
        told(np.log(target)).float()[None],
        told([rate]),
        told([turns]),
        told([False]),
    )
    return np.asarray(search.run()[0].double())
