"""The grammar's parser, from tables computed beforehand: making them anew would be most of `attncc check`'s time.

`attn.tables.json` holds what lark computes from `attn.lark`, and the hash of what it was computed from. Where grammar
or lark have changed since, the tables are made anew in memory; `make grammar` writes them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import lark

_GRAMMAR = Path(__file__).with_name("attn.lark")
_TABLES = Path(__file__).with_name("attn.tables.json")
_OPTIONS: dict[str, Any] = {"parser": "lalr", "lexer": "basic", "keep_all_tokens": True, "maybe_placeholders": False}


def load_parser(transformer: lark.Transformer[Any, Any]) -> lark.Lark:
    """The parser of `attn.lark`, whose rules are handed to `transformer` as they are recognised."""
    grammar = _GRAMMAR.read_text(encoding="utf-8")
    stored = _stored(_origin(grammar))
    if stored is None:
        return lark.Lark(grammar, transformer=transformer, **_OPTIONS)
    data, memo = stored
    # What lark's own generator of standalone parsers calls; it has no public name.
    loaded: lark.Lark = lark.Lark._load_from_dict(  # type: ignore[no-untyped-call]
        data, memo, transformer=transformer
    )
    return loaded


def write_tables() -> Path:
    """Computes the tables and writes them into the package."""
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    grammar = _GRAMMAR.read_text(encoding="utf-8")
    data, memo = lark.Lark(grammar, **_OPTIONS).memo_serialize([TerminalDef, Rule])
    document = {"origin": _origin(grammar), "data": data, "memo": memo}
    _TABLES.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    return _TABLES


def is_current() -> bool:
    """Whether the stored tables are those of the grammar and the lark that are here."""
    return _stored(_origin(_GRAMMAR.read_text(encoding="utf-8"))) is not None


def _origin(grammar: str) -> str:
    text = f"{lark.__version__}\n{json.dumps(_OPTIONS, sort_keys=True)}\n{grammar}"
    return hashlib.sha256(text.encode()).hexdigest()


def _stored(origin: str) -> tuple[dict[str, Any], dict[int, Any]] | None:
    try:
        document = json.loads(_TABLES.read_bytes())
    except (OSError, ValueError):
        return None
    if document.get("origin") != origin:
        return None
    # JSON has turned the numbers that name states and shared objects into strings, and pairs into lists.
    parser = document["data"]["parser"]["parser"]
    parser["states"] = {
        int(state): {token: tuple(action) for token, action in actions.items()}
        for state, actions in parser["states"].items()
    }
    return document["data"], {int(number): shared for number, shared in document["memo"].items()}


if __name__ == "__main__":
    print(write_tables())
