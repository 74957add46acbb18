import pytest

from data.english import article, plural


@pytest.mark.parametrize("word", ["orange", "hour", "umbrella", "underwater", "uninflated", "Owl"])
def test_an(word):
    assert article(word) == "an"


@pytest.mark.parametrize("word", ["dog", "one-piece", "uniform", "European", "unicycle", "used"])
def test_a(word):
    assert article(word) == "a"


@pytest.mark.parametrize(
    "pair",
    "dog:dogs fox:foxes bus:buses church:churches butterfly:butterflies key:keys mouse:mice "
    "jellyfish:jellyfish sheep:sheep knife:knives snowman:snowmen tomato:tomatoes".split(),
)
def test_plural(pair):
    singular, expected = pair.split(":")
    assert plural(singular) == expected
