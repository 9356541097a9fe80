"""How options of a fit are refused: before any model is asked anything. Knows no fit."""

from __future__ import annotations

from ensemble.errors import ConfigurationError


def require(holds: bool, option: str, rule: str) -> None:
    """Refuse an option.

    Args:
        rule: what it must be, as the message goes on after its name.

    Raises:
        ConfigurationError: naming the option, unless ``holds``.
    """
    if not holds:
        raise ConfigurationError(f"{option} {rule}", param=option)
