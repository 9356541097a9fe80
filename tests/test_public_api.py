"""The one public door: what it exports is decided here, and importing it is light."""

from __future__ import annotations

import subprocess
import sys

import ensemble

EXPORTED = """
Answer BadAnswer BadRequest BodyTooLarge Budget BudgetExceeded Capability Caps Card Completion ConfigurationError
ContextTooLong Delta Distribution Draining Ensemble EnsembleError Event Finish Incident Judge Member MemberError
MemberLost MemberTimeout Members Message Method MissingCapability Options OtherVersion OverCap Overloaded Policy Price
Proposal QueueFull Reply Request Sampling Scored Session Spent Stage TokenLogprob Tokeniser Trace UnknownModel
UnknownOption Usage Vocabulary collect method methods
"""
HEAVY = ("torch", "transformers", "ray", "httpx", "fastapi", "pyarrow")


def test_the_exported_names_are_these() -> None:
    assert sorted(ensemble.__all__) == EXPORTED.split()
    assert ensemble.__all__ == sorted(ensemble.__all__)


def test_every_exported_name_is_there_and_nothing_else_that_is_public() -> None:
    modules = {name for name in vars(ensemble) if f"ensemble.{name}" in sys.modules}
    public = {name for name in vars(ensemble) if not name.startswith("_")}
    assert public - modules | {"method"} == set(ensemble.__all__)


def test_the_decorator_keeps_its_name_whatever_is_imported() -> None:
    code = "import ensemble.method, ensemble; from ensemble.method import method; assert ensemble.method is method"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_it_brings_nothing_heavy_along() -> None:
    code = f"import ensemble, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
