"""The named shapes against the parameter counts that OpenAI and open_clip publish."""

import math

import jax.numpy as jnp
import pytest

from models import zoo
from pretrained import names

# As open_clip's own models count (numel of their parameters, open_clip 3.3); the papers' figures
# for B/32, B/16 and L/14 are 151.3M, 149.6M and 427.6M.
PUBLISHED = {
    "ViT-S-16": 62_257_537,
    "ViT-B-32": 151_277_313,
    "ViT-B-16": 149_620_737,
    "ViT-L-14": 427_616_513,
    "ViT-L-14-336": 427_944_193,
    "ViT-H-14": 986_109_441,
    "ViT-B-16-SigLIP": 203_155_970,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    shapes = names.parameter_shapes(zoo.shape(name))
    assert sum(map(math.prod, shapes.values())) == PUBLISHED[name]


def test_every_named_shape_but_the_tiny_ones_is_counted():
    assert set(zoo.SHAPES) - set(PUBLISHED) == {"tiny", "world"}


def test_quickgelu_changes_the_activation_of_both_towers_only():
    plain, quick = zoo.shape("ViT-B-32"), zoo.shape("ViT-B-32-quickgelu")
    assert (plain.vision.activation, plain.text.activation) == ("gelu", "gelu")
    assert (quick.vision.activation, quick.text.activation) == ("quick_gelu", "quick_gelu")
    assert zoo.with_activation(quick, "gelu") == plain


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match="'ViT-B-23': did you mean ViT-B-32.*ViT-H-14"):
        zoo.shape("ViT-B-23")


def test_build_follows_the_config():
    model = zoo.build(
        "tiny-quickgelu",
        vocab_size=300,
        eos_token_id=299,
        dtype="bfloat16",
        logit_scale_init=1.0,
        logit_bias_init=-10.0,
    )
    assert model.config.text.vocab_size == 300 and model.config.text.eos_token_id == 299
    assert model.config.logit_scale_init == 1 and model.config.logit_bias_init == -10
    assert model.config.vision.activation == "quick_gelu"
    assert model.compute.dtype == jnp.bfloat16
    auto = zoo.build("tiny", vocab_size=300, eos_token_id=299)
    assert auto.compute.dtype == jnp.float32  # the tests run on a CPU
    assert auto.config.logit_bias_init is None


@pytest.mark.parametrize(
    "wrong, message",
    [({"dtype": "int8"}, "dtype is 'int8'.*bfloat16"), ({"remat": "all"}, "'all'.*dots_no_batch")],
)
def test_build_names_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("tiny", vocab_size=300, eos_token_id=299, **wrong)
