"""How many known cells a novelty calibration would call novel, told from the calibration alone.

The cells that one stage held out are judged by those that the other stages held out, as the cells of a data set that
was not there when the model was calibrated.
"""

import numpy as np

from canal.detect.calibration import NoveltyCalibration
from canal.detect.reference import Reference

ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
FEW = 20  # held-out cells below which a stage has no curve of its own


def false_alarms(calibration: NoveltyCalibration, alphas: tuple[float, ...] = ALPHAS) -> dict[int, np.ndarray]:
    """Return the share of each stage's held-out cells that the other stages' cells would call novel.

    A stage with few held-out cells has none, and there is none at all where one stage alone was calibrated. Each
    stage's novelties are taken as they were at that stage.

    Parameters
    ----------
    calibration
        Novelties of the held-out cells of every stage.
    alphas
        Shares of known cells that may be called novel.

    Returns
    -------
    By stage, a share for each alpha, (alphas,). Where the stages' cells are alike it is about alpha.
    """
    found = {}
    for stage in calibration.stages:
        others = [s.novelty for s in calibration.stages if s.stage != stage.stage and len(s.novelty)]
        if len(stage.novelty) < FEW or not others:
            continue
        known = np.concatenate(others)
        p_values = Reference.of(known, np.ones(len(known))).p_values(stage.novelty)
        found[stage.stage] = np.array([(p_values <= alpha).mean() for alpha in alphas])
    return found
