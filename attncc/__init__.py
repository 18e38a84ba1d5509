"""attncc: a compiler for attention. `docs/api.md` tells what is here.

Names load when first used, so that a tool that only reads specs imports neither torch nor triton.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attncc.analysis.plan import Plan as Plan
    from attncc.api import Attention as Attention
    from attncc.api import SpecWarning as SpecWarning
    from attncc.api import attention as attention
    from attncc.api import compile as compile
    from attncc.api import from_flex as from_flex
    from attncc.api import load as load
    from attncc.api import loads as loads
    from attncc.errors import ArgumentError as ArgumentError
    from attncc.errors import AttnccError as AttnccError
    from attncc.errors import BackendError as BackendError
    from attncc.errors import CacheError as CacheError
    from attncc.errors import SpecError as SpecError
    from attncc.errors import UnsupportedError as UnsupportedError
    from attncc.grammar.trace import Const as Const
    from attncc.grammar.trace import Input as Input
    from attncc.runtime.backends import OracleWarning as OracleWarning

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "attncc.errors",
    "Attention": "attncc.api",
    "AttnccError": "attncc.errors",
    "BackendError": "attncc.errors",
    "CacheError": "attncc.errors",
    "Const": "attncc.grammar.trace",
    "Input": "attncc.grammar.trace",
    "OracleWarning": "attncc.runtime.backends",
    "Plan": "attncc.analysis.plan",
    "SpecError": "attncc.errors",
    "SpecWarning": "attncc.api",
    "UnsupportedError": "attncc.errors",
    "attention": "attncc.api",
    "compile": "attncc.api",
    "from_flex": "attncc.api",
    "load": "attncc.api",
    "loads": "attncc.api",
}

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attncc' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
