"""Lets the tests beside it import ``span_toys``, and ``token_toys`` of the token level."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "token")]
