"""A CLIP that looks: the shipped weights know which of two captions is true of a scene."""

import pickle

import numpy as np
import pytest

from captions.teacher import ImageMargin
from data import sources
from tpu_configs.base import WORLD_WEIGHTS


@pytest.fixture(scope="module")
def margin():
    return pickle.loads(pickle.dumps(ImageMargin(WORLD_WEIGHTS)))


def test_what_is_false_of_a_scene_is_farther_from_it(margin):
    options = dict(length=40, nouns="seen", size=48, num_negatives=1, types=("replace_noun",))
    scenes = [sources.load("world", "", **options)[i] for i in range(40)]
    images = [scene["image"] for scene in scenes]
    true = [scene["captions"][0] for scene in scenes]
    false = [np.ravel(scene["negatives"])[0] for scene in scenes]
    margins = margin(images, true, false)
    assert margins.shape == (40,) and np.mean(margins < 0) > 0.9
    np.testing.assert_allclose(margin(images, false, true), -margins, atol=1e-6)
    np.testing.assert_allclose(margin(images, true, true), 0, atol=1e-6)
