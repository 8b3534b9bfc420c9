"""All experiments of `fpcontrol verify`: they pass, check something, and can be drawn."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol import theorems


def listed(quick):
    return {e.key: e for s in theorems.STATEMENTS for e in s.experiments(quick)}


@pytest.mark.parametrize("experiment", listed(True).values(), ids=listed(True))
def test_quick_experiments_pass(experiment):
    study = experiment.run(SELF)
    assert not failures(study)
    assert any(row.is_check for row in study.rows)
    for panel in study.panels:
        for line in panel.lines:
            x, y = np.array(line.x), np.array(line.y)
            assert x.shape == y.shape
            assert np.isfinite([x, y]).all()
            assert panel.xscale == "linear" or (x > 0).all()
            assert panel.yscale == "linear" or (y > 0).all()


@pytest.mark.slow
@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("experiment", listed(False).values(), ids=listed(False))
def test_experiments_pass(experiment):
    assert not failures(experiment.run(WORLD))


@pytest.mark.parametrize("quick", [True, False])
def test_every_parameter_is_explained(quick):
    for experiment in listed(quick).values():
        assert experiment.title.strip()
        for parameter in experiment.parameters:
            assert parameter.text, f"{experiment.key} --{parameter.name}"
