"""The pages a newcomer meets first: their links lead somewhere, their specs are right, their commands exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from attncc.cli.main import COMMANDS
from attncc.grammar.frontend import loads_specs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("page", [*PAGES, EXAMPLES / "README.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_the_first_spec_is_right() -> None:
    blocks = re.findall(r"```attn\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert loads_specs(block).specs


def test_every_example_is_in_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [p.name for p in EXAMPLES.glob("*.attn") if f"(examples/{p.name})" not in text]
    assert missing == ["train_bytes.attn"]  # its program is


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "cli.md"], ids=lambda p: p.name)
def test_the_commands_exist(page: Path) -> None:
    named = set(re.findall(r"attncc ([a-z]+)\b", page.read_text(encoding="utf-8")))
    assert named & set(COMMANDS) == set(COMMANDS) - ({"list", "cache"} if page.name == "README.md" else set())


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in folder.glob("*.md") if p.name != "README.md" and f"({p.name})" not in index] == []


def test_make_help_lists_the_targets() -> None:
    said = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-all", "check", "lint", "format", "typecheck", "clean", "help"):
        assert re.search(rf"^  make {target} +\S", said, re.MULTILINE), target
