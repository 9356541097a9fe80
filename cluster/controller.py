"""The environment that Serve's controller is started with. Knows no Ray, so that manifests are written without it."""

from __future__ import annotations

WATCHFUL = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2"}
"""A lost HTTP proxy is replaced after three failed checks, one in each period; Serve's own period is 10 s."""
