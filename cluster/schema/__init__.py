"""The configuration file as types: what may stand in it, in which unit, and what holds where a key is left out.

Each value is checked by itself here; ``cluster.consistency`` checks what has to fit together. Nothing is loaded or
started.
"""

from __future__ import annotations

from cluster.schema.ensembles import BreakerConfig, BudgetConfig, CapsConfig, EnsembleConfig, JudgeConfig, PolicyConfig
from cluster.schema.models import EncoderConfig, HeadConfig, Hosted, ModelConfig
from cluster.schema.parts import Bytes, DriverResources, Name, Part, PriceConfig, Resources, amount
from cluster.schema.service import Configuration, FeedbackConfig, GatewayConfig

__all__ = [
    "BreakerConfig",
    "BudgetConfig",
    "Bytes",
    "CapsConfig",
    "Configuration",
    "DriverResources",
    "EncoderConfig",
    "EnsembleConfig",
    "FeedbackConfig",
    "GatewayConfig",
    "HeadConfig",
    "Hosted",
    "JudgeConfig",
    "ModelConfig",
    "Name",
    "Part",
    "PolicyConfig",
    "PriceConfig",
    "Resources",
    "amount",
]
