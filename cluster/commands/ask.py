"""``ensemble ask``: one question to a served model or ensemble, the answer as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import click

from cluster import client
from cluster.commands.common import Failed, options_of, table

Json = dict[str, Any]

url_option = click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="Address of the gateway.", metavar="URL"
)


@click.command()
@click.argument("model")
@click.argument("question")
@url_option
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the ensemble's method; repeatable."
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens to write at most.")
@click.option("--temperature", type=float, help="0 (the default) is greedy.")
@click.option("--top-p", type=float, help="Smallest set of tokens whose mass reaches it is kept.")
@click.option("--seed", type=int, help="Same seed, same text.")
@click.option("--n", type=click.IntRange(min=1), help="Answers wanted; several are printed when all are there.")
@click.option("--stop", multiple=True, metavar="TEXT", help="The answer ends before this; repeatable.")
@click.option("--credits", "with_credits", is_flag=True, help="Print who wrote what, and the usage of each member.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
def ask(
    model: str,
    question: str,
    url: str,
    options: tuple[str, ...],
    with_credits: bool,
    no_stream: bool,
    stop: tuple[str, ...],
    **sampling: Any,
) -> None:
    """Ask MODEL, a model or an ensemble, the QUESTION, and print the answer as it arrives.

    Exit status 1 if there is no whole answer; the reason goes to standard error.
    """
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    given = {**sampling, "stop": list(stop) or None, "ensemble": options_of(options) or None}
    body |= {key: value for key, value in given.items() if value is not None}
    try:
        reply = _whole(url, body) if no_stream or (sampling["n"] or 1) > 1 else _streamed(url, body)
    except client.Unanswered as error:
        raise Failed(str(error)) from error
    if with_credits:
        _show_credits(reply)


def _whole(url: str, body: Json) -> Json:
    reply = client.answer(url, body)
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    for i, text in enumerate(texts, start=1):
        click.echo(f"[{i}] {text}" if len(texts) > 1 else text)
    return {"texts": texts, "credits": reply.get("ensemble", {}).get("credits", []), "usage": reply.get("usage")}


def _streamed(url: str, body: Json) -> Json:
    text = ""
    credits: list[Any] = []
    usage = None
    try:
        with closing(client.stream(url, body)) as chunks:
            for chunk in chunks:
                piece = "".join(_pieces(chunk))
                click.echo(piece, nl=False)
                text += piece
                told = chunk.get("ensemble", {}).get("credits", [])
                credits = told if isinstance(told, list) and told else credits
                usage = chunk.get("usage") or usage
    finally:
        if text:
            click.echo()
    return {"texts": [text], "credits": credits, "usage": usage}


def _pieces(chunk: Mapping[str, Any]) -> Iterator[str]:
    for choice in chunk.get("choices", []):
        yield choice.get("delta", {}).get("content") or ""


def _show_credits(reply: Mapping[str, Any]) -> None:
    click.echo()
    spans = [
        (repr(text[span["start"] : span["end"]]), ", ".join(f"{m} {w:.3g}" for m, w in span["members"].items()))
        for text, choice in zip(reply["texts"], reply["credits"], strict=False)
        for span in choice
    ]
    table("Credits", ("text", "members"), spans)
    members = ((reply["usage"] or {}).get("members") or {}).items()
    columns = ("calls", "prompt_tokens", "completion_tokens", "cost")
    table("Usage", ("member", *columns), [(name, *(str(used[c]) for c in columns)) for name, used in members])
