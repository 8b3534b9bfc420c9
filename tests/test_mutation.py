"""Mutations are of the code as it stands, and the kept table has all of them caught."""

from pathlib import Path

import pytest
from mutation import TABLE
from mutations import MUTATIONS

from fpcontrol.theorems.framework import runner as suite

PACKAGE = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation_is_of_the_code_as_it_stands(mutation):
    text = (PACKAGE / "fpcontrol" / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert suite.select(mutation.first, quick=True)


def test_kept_table_of_mutations_has_all_of_them_caught():
    lines = [f"| {m.name} | `{m.file}` | " for m in MUTATIONS]
    kept = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "][1:]
    assert len(kept) == len(lines)
    assert all(line.startswith(head) for line, head in zip(kept, lines, strict=True))
    assert not any("SURVIVED" in line for line in kept)
