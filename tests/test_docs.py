"""Every program in the documentation runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

import fpcontrol as fpc

ROOT = Path(__file__).parents[1]


def programs(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = [
    pytest.param(text, id=f"{path.stem}-{i}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.stem != "tour"  # its programs are one, run on ranks in test_demos.py
    for i, text in enumerate(programs(path))
]


def test_there_are_programs():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.filterwarnings("error")
def test_program(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {"__name__": "program"}
    exec(compile(text, "program", "exec"), found)
    if "trajectory" in found:
        assert found["trajectory"].mass_defect < 1e-12
    if "result" in found:
        result = found["result"]
        assert result.problem(result.weights) < 0.9 * result.problem(np.zeros(result.weights.size))


def test_readme_begins_with_a_program_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(programs(ROOT / "README.md")[0], "program", "exec"), found)
    assert len(found["trajectory"]) == 11
    assert (tmp_path / "out" / "turn.npz").exists()


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.stem
)
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if not (path.parent / link).exists()]


def test_index_lists_the_documents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert listed <= set(re.findall(r"\]\((\w+\.md)\)", index))


def test_public_names_are_listed():
    listed = re.findall(r"`fpc\.(\w+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    assert set(listed) - {"NAME"} == set(fpc.__all__) - {"__version__"}
