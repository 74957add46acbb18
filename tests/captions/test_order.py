"""ARO's perturbations: what moves, what stays, and that they are made once."""

import json

import numpy as np
import pytest

from captions import order
from captions.rules import ADJECTIVES, NOUNS, parse
from data import frozen

CAPTION = "A brown dog's small puppy is quickly running over the very green grass!"


def test_each_perturbation_moves_what_it_says():
    true, nouns, others, within, trigrams = (
        text.split() for text in order.perturbations(CAPTION, np.random.default_rng(1))
    )
    assert true == order.clean(CAPTION).split()
    sentence = parse(" ".join(true))
    named = [tag in NOUNS | ADJECTIVES for tag in sentence.tags]
    assert sum(named) >= 5
    for text in (nouns, others, within, trigrams):
        assert sorted(text) == sorted(true) and text != true
    assert all(a == b for a, b, moves in zip(true, nouns, named, strict=True) if not moves)
    assert all(a == b for a, b, moves in zip(true, others, named, strict=True) if moves)
    for start in range(0, len(true), 3):
        assert sorted(within[start : start + 3]) == sorted(true[start : start + 3])
    whole = {tuple(true[i : i + 3]) for i in range(0, len(true), 3)}
    assert sum(tuple(trigrams[i : i + 3]) in whole for i in range(len(trigrams))) >= len(whole) - 1


def test_texts_are_clean_and_of_thirty_words_at_most():
    texts = order.perturbations("One-two, three's (four)! " * 20, np.random.default_rng(0))
    assert {len(text.split()) for text in texts} == {30}
    assert all(text == text.lower() and text.replace(" ", "").isalnum() for text in texts)


def test_they_are_made_once_and_known_by_a_hash(tmp_path, shared):
    source = shared / "data/flickr30k/flickr30k_test.json"
    few = tmp_path / "few.json"
    few.write_text(json.dumps(json.loads(source.read_text())[:20]))
    first, again, other = (
        order.write(few, tmp_path / f"{name}.json", seed=seed)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other
    rows, hashed = frozen.read(tmp_path / "first.json")
    assert hashed == first and len(rows) == 100
    assert rows[0]["image"] == "1007129816.jpg" and len(rows[0]["texts"]) == 5
    karpathy = tmp_path / "karpathy.json"
    content = json.loads((shared / "data/aro/coco_karpathy_test.json").read_text())
    karpathy.write_text(json.dumps(content[:4]))
    order.write(karpathy, tmp_path / "coco.json")
    assert frozen.read(tmp_path / "coco.json")[0][0]["image"].startswith("val2014/COCO_val2014")


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "x.json").write_text('[{"caption": ["a dog"]}]')
    with pytest.raises(ValueError, match=r"x.json\[0\]: expected"):
        order.write(tmp_path / "x.json", tmp_path / "out.json")
