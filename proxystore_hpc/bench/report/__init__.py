"""The report of a run: one HTML file without anything from elsewhere, plots as SVG, no scripts."""

from __future__ import annotations

from proxystore_hpc.bench.report.page import render

__all__ = ["render"]
