"""What is told of a method beside its docstrings: facts by hand, and figures. One file each below ``docs/methods/``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Base of what is read; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Facts(Part):
    """``facts/NAME.toml``: what no docstring says. Texts are Markdown."""

    sentence: str
    """What it does, without a capital or a full stop."""
    vocabularies: Literal["any", "one", "one to fit"]
    """Whether members need one vocabulary: at no time, always, or only to be fitted to."""
    traffic: str
    """Bytes for each token and member with the options' defaults."""
    use: str
    """When to use it."""
    avoid: str
    """When not, and why; where it is known to lose to the best member."""
    trained: str = ""
    """What is fitted. Empty: nothing."""
    fit: str = ""
    """The command that fits it."""
    example: str
    """The least configuration that runs it, YAML."""
    notes: str = ""
    """Anything else."""

    @model_validator(mode="after")
    def _fitted(self) -> Self:
        if bool(self.trained) != bool(self.fit):
            raise ValueError("trained and fit belong together: what is fitted, and the command that fits it")
        return self


class Quality(Part):
    """How right its answers were."""

    on: str
    """Questions, and how many."""
    members: str
    accuracy: float
    """Part of the answers that were right."""
    best: str
    """The best member, chosen on other questions than these."""
    best_accuracy: float
    interval: tuple[float, float]
    """95 % interval of the difference to the best member, in points."""
    why: str = ""
    """Why it loses; must be there where it does."""
    command: str
    """What measures it anew."""

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.interval[1] < 0 and not self.why:
            raise ValueError("a method that loses to the best member needs `why`")
        return self

    @property
    def verdict(self) -> str:
        """As ``ensemble evaluate`` words it."""
        low, high = self.interval
        gain = 100 * (self.accuracy - self.best_accuracy)
        span = f"[{low:+.1f}, {high:+.1f}]"
        return (
            f"wins by {gain:.1f} {span}" if low > 0 else f"loses by {-gain:.1f} {span}" if high < 0 else f"tie {span}"
        )


class Efficiency(Part):
    """Tokens per second over those of the slowest member while the others decode beside it, in one run."""

    on: str
    """Members and machine."""
    ratio: dict[int, float]
    """By requests at a time."""
    command: str
    """What measures it anew."""

    @property
    def told(self) -> str:
        # Halves are rounded up, as people do: 0.825 is a little less in binary.
        rounded = {concurrent: ratio + 1e-9 for concurrent, ratio in sorted(self.ratio.items())}
        return ", ".join(f"{ratio:.2f} at {concurrent}" for concurrent, ratio in rounded.items())


class Measured(Part):
    """Figures of one method, one kind of them at least."""

    quality: Quality | None = None
    efficiency: Efficiency | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.quality is None and self.efficiency is None:
            raise ValueError("where nothing was measured nothing is told: leave the method out")
        return self

    @property
    def commands(self) -> list[str]:
        """What measures all of it anew."""
        return [figures.command for figures in (self.quality, self.efficiency) if figures is not None]
