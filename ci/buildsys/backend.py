"""PEP 517 backend: setuptools', plus the UCX wheel as a requirement where nothing else has UCX."""

from __future__ import annotations

from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (  # noqa: F401  (re-exported: these hooks are used as they are)
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

import parts
import ucx_sdk


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Setuptools' own requirements and, if need be, the UCX wheel."""
    return [
        *_setuptools.get_requires_for_build_wheel(config_settings),
        *_ucx_requirements(),
    ]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """The same for an editable installation."""
    return [
        *_setuptools.get_requires_for_build_editable(config_settings),
        *_ucx_requirements(),
    ]


def _ucx_requirements() -> list[str]:
    return ucx_sdk.wheel_requirements() if parts.why_none() is None else []
