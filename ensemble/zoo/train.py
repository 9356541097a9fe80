"""Trains the zoo: `python -m ensemble.zoo.train [MEMBER ...] --out DIR`.

Items, their order and the first weights are fixed by the recipe's seed; rounding is the machine's, and tokenisation
dropout draws from a generator that takes no seed. So two runs agree in accuracy, not in bits. Each member's folder
gets fp16 weights, config, tokenizer and `report.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from ensemble.zoo import MEMBERS
from ensemble.zoo.candidates import generate_checks
from ensemble.zoo.lessons import Batch, batches
from ensemble.zoo.recipes import RECIPES, Recipe, Stage
from ensemble.zoo.scoring import forced_accuracy, greedy_accuracy
from ensemble.zoo.tasks import TASKS, Item, generate
from ensemble.zoo.tokenisation import packaged

_log = logging.getLogger(__name__)

_WARMUP = 50
_PROBE_EVERY = 50
_PROBE_SEED, _REPORT_SEED = 1, 0
_ITEMS = 200


class _Optimizers:
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases, under one learning rate."""

    def __init__(self, model: PreTrainedModel, rate: float) -> None:
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        hidden = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
        others = [p for p in model.parameters() if p.ndim != 2 or id(p) in embeddings]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._peaks = [part.param_groups[0]["lr"] for part in self._parts]

    def step(self, scale: float) -> None:
        """One update at `scale` times the peak learning rates."""
        for part, peak in zip(self._parts, self._peaks, strict=True):
            part.param_groups[0]["lr"] = peak * scale
            part.step()
            part.zero_grad()


def train(recipe: Recipe) -> tuple[PreTrainedModel, Tokenizer]:
    """A member made by its recipe, in fp32."""
    torch.manual_seed(recipe.seed)
    tokenizer = recipe.tokenizer()
    model: PreTrainedModel = AutoModelForCausalLM.from_config(recipe.config(tokenizer.get_vocab_size()))
    for stage in recipe.stages:
        _run_stage(model, tokenizer, recipe, stage)
    return model.eval(), tokenizer


def _run_stage(model: PreTrainedModel, tokenizer: Tokenizer, recipe: Recipe, stage: Stage) -> None:
    optimizers = _Optimizers(model, stage.learning_rate)
    steps = batches(recipe, stage, tokenizer)
    done = 0
    while done < stage.steps and not (done % _PROBE_EVERY == 0 and _reached(model, tokenizer, stage, done)):
        _learn(model, next(steps))
        optimizers.step(min(1.0, (done + 1) / _WARMUP))
        done += 1
    for left in range(stage.cooldown, 0, -1):
        _learn(model, next(steps))
        optimizers.step(left / stage.cooldown)


def _reached(model: PreTrainedModel, tokenizer: Tokenizer, stage: Stage, done: int) -> bool:
    scores = {task: forced_accuracy(model, tokenizer, _items(task, _PROBE_SEED)) for task in stage.goals}
    _log.info("step %d: %s", done, ", ".join(f"{task} {score:.2f}" for task, score in scores.items()))
    return all(scores[task] >= goal for task, goal in stage.goals.items())


def _items(task: str, seed: int) -> list[Item]:
    """The held-out items a score is taken on; those of check are spread over the tasks."""
    if task == "check":
        return [item for name in TASKS for item in generate_checks(name, _ITEMS // len(TASKS), seed)]
    return generate(task, _ITEMS, seed)


def _learn(model: PreTrainedModel, parts: Sequence[Batch]) -> float:
    """Adds the gradients of one step's loss, the weighted mean over its learnt tokens, and returns that loss."""
    whole = sum(float(part.weights.sum()) for part in parts)
    total = 0.0
    for part in parts:
        learnt = part.weights > 0
        hidden = model.base_model(input_ids=part.ids, use_cache=False).last_hidden_state[learnt]
        losses = functional.cross_entropy(model.get_output_embeddings()(hidden), part.labels[learnt], reduction="none")
        loss = losses @ part.weights[learnt] / whole
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes fp16 weights, config and tokenizer as `from_pretrained` reads them."""
    model.half().save_pretrained(folder)
    packaged(tokenizer).save_pretrained(folder, save_jinja_files=False)


def report(folder: Path) -> dict[str, Any]:
    """Size and greedy accuracies of saved weights, read back in fp32; `check` tells the verdicts apart by task."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return {
        "parameters": model.num_parameters(),
        "vocabulary": tokenizer.get_vocab_size(),
        "items_per_task": _ITEMS,
        "accuracy": {task: greedy_accuracy(model, tokenizer, generate(task, _ITEMS, _REPORT_SEED)) for task in TASKS},
        "check": {
            task: greedy_accuracy(model, tokenizer, generate_checks(task, _ITEMS, _REPORT_SEED)) for task in TASKS
        },
        "canary": greedy_accuracy(model, tokenizer, generate("canary", _ITEMS, _REPORT_SEED)),
    }


def make(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Trains one member into a folder and returns its report, which it also writes there."""
    begin = time.process_time()
    model, tokenizer = train(recipe)
    seconds = round(time.process_time() - begin)
    save(model, tokenizer, folder)
    figures = {"member": recipe.name, "seed": recipe.seed, "training_cpu_seconds": seconds, **report(folder)}
    (folder / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: the members to train (all when none is named) and the folder that receives theirs."""
    parser = argparse.ArgumentParser(prog="python -m ensemble.zoo.train", description="Train the miniature zoo.")
    parser.add_argument("members", nargs="*", metavar="MEMBER", help=f"of {', '.join(MEMBERS)}; all when omitted")
    parser.add_argument("--out", type=Path, required=True, help="folder in which each member gets its own")
    options = parser.parse_args(arguments)
    if unknown := set(options.members) - set(MEMBERS):
        parser.error(f"no such member: {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # The models are too small to gain from a second thread.
    torch.set_num_threads(1)
    for name in options.members or MEMBERS:
        _log.info("%s: %s", name, make(RECIPES[name], options.out / name))


if __name__ == "__main__":
    main()
