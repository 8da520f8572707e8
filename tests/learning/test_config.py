"""Options that cannot be used are refused with a sentence."""

from __future__ import annotations

import pytest

from tesseral.learning.config import ExploreConfig, LabelConfig, LearnConfig, RoundFitConfig
from tesseral.training.config import TrainerConfig


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ExploreConfig(time=0), "`time` is 0"),
        (lambda: ExploreConfig(temperatures=[300, -1]), "`temperatures` has -1"),
        (lambda: ExploreConfig(strain=2), "`strain` is 2"),
        (lambda: ExploreConfig(every=0), "`every` is 0"),
        (lambda: LabelConfig(calculator="manual", processes=0), "`processes` is 0"),
        (lambda: RoundFitConfig(validation_fraction=0.0), "`validation_fraction` is 0.0"),
        (lambda: RoundFitConfig(trainer=TrainerConfig(directory="x")), "`trainer.directory`"),
        (lambda: RoundFitConfig(trainer=TrainerConfig(devices=2)), "ask for 2 processes"),
        (lambda: learn(structures=[]), "`structures` is empty"),
        (lambda: learn(rounds=0), "`rounds` is 0"),
        (lambda: learn(first_labels=1), "`first_labels` is 1"),
        (lambda: learn(budget=0), "`budget` is 0"),
        (lambda: learn(target=-1.0), "`target` is -1.0"),
    ],
)
def test_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def learn(**options) -> LearnConfig:
    given = {
        "structures": ["a.cif"],
        "output": "out",
        "labels": LabelConfig(calculator="manual"),
        **options,
    }
    return LearnConfig(**given)
