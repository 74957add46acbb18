"""The audit of negatives: planted auditors, controls, what cannot be read, escaped pages."""

import csv
import json

import numpy as np
import pytest

from language import scripted
from teaching import audit as module
from teaching.audit import Negative, audit

NEGATIVES = [
    Negative("a.jpg", "A cat sits on a mat", "A dog sits on a mat", ("A pet on a mat",)),
    Negative("a.jpg", "A cat sits on a mat", "mat a on sits cat", ("A pet on a mat",)),
    Negative("b.jpg", "Two men eat <b>soup</b>", "Two men eat & drink", ()),
]


def last(prompt, label):
    return prompt.rpartition(f"{label}: ")[2].partition("\n")[0]


def right_auditor(prompt, rng):
    """Answers by rule: fluent starts with a capital letter; false is what no caption says."""
    if "good English" in prompt or "ordinary photograph" in prompt:
        return " yes" if last(prompt, "Sentence")[0].isupper() else " no"
    if "in one thing" in prompt:
        pair = last(prompt, "First").split(), last(prompt, "Second").split()
        same = sum(a == b for a, b in zip(*pair, strict=False))
        return "Yes." if len({*map(len, pair), same + 1}) == 1 else "No."
    return "no" if last(prompt, "Claim").endswith("on a mat") else "yes"


def test_a_planted_auditor_is_heard():
    result = audit(scripted.open(right_auditor), NEGATIVES)
    np.testing.assert_array_equal(result.scores["fluent"], [1, 0, 1])
    np.testing.assert_array_equal(result.scores["one_change"], [1, 0, 0])
    assert set(result.unparsed.values()) == {0}
    # A shuffle may begin with the capital: the auditor's own rule is then fooled, and it shows.
    right, count = result.known["fluent"]
    assert count == 6 and right >= 0.5
    assert result.known["one_change"] == (1.0, 2)


def test_an_auditor_that_always_says_yes_is_found_out():
    """Half of the known answers are no: it is right by chance, whatever it says of negatives."""
    result = audit(scripted.open(lambda prompt, rng: "yes"), NEGATIVES)
    assert all((scores == 1).all() for scores in result.scores.values())
    assert result.known["fluent"] == (0.5, 6)
    assert result.known["one_change"] == (0.0, 2)


def test_choices_are_preferred_and_are_probabilities():
    model = scripted.open(scores=lambda prompt, answer: {" yes": np.log(3), " no": 0.0}[answer])
    result = audit(model, NEGATIVES)
    np.testing.assert_allclose(result.scores["plausible"], 0.75)
    assert model.calls["generate"] == 0


def test_what_cannot_be_read_is_no_answer(tmp_path):
    result = audit(scripted.open(lambda prompt, rng: "nothing to say, yes"), NEGATIVES)
    assert result.unparsed == dict.fromkeys(module.RUBRIC, 3)
    assert result.known["fluent"] == (0.0, 6)
    module.write_scores(tmp_path / "scores.csv", NEGATIVES, result)
    assert (tmp_path / "scores.csv").read_text().strip() == "item,key,score"
    assert "yes none, unparsed 3" in module.summary(result)
    assert np.isnan(module.parse_answer("Note")) and module.parse_answer(" No, it is") == 0


def test_every_text_on_the_sheet_is_escaped():
    nasty = Negative('"><script>', "<i>", "a & b </td>", ())
    result = audit(scripted.open(right_auditor), [nasty])
    page = module.sheet([nasty], result, {"checks": ["<b>no</b>"]})
    assert "<script>" not in page and "<i>" not in page and "<b>no" not in page
    assert "&quot;&gt;&lt;script&gt;" in page and "a &amp; b &lt;/td&gt;" in page
    assert page.count("<tr>") == 2


def test_command(tmp_path, capsys):
    rows = [{"image_id": n.image, "original": n.caption, "enhanced": [n.text]} for n in NEGATIVES]
    (tmp_path / "negatives.json").write_text(json.dumps(rows))
    captions = [{"image": "a.jpg", "captions": ["A cat sits on a mat", "A pet on a mat"]}]
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    files = [str(tmp_path / name) for name in ("negatives.json", "captions.json")]
    assert module.read_negatives(*files) == NEGATIVES
    command = [*files, "--model=scripted", f"--out={tmp_path / 'out'}", "--sample=2"]
    module.main(command, load=lambda name: scripted.open(right_auditor))
    assert "fluent: yes" in capsys.readouterr().out
    with (tmp_path / "out/scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * len(module.RUBRIC)
    page = (tmp_path / "out/audit.html").read_text()
    assert "Audit of 2 negatives" in page and "<th>checks</th>" in page and "passed" in page
    first = NEGATIVES[0]
    row = f"{first.image},{first.caption},{first.text},0.25"
    (tmp_path / "useful.csv").write_text(f"image,caption,negative,usefulness\n{row}\n")
    assert module.read_usefulness(tmp_path / "useful.csv", NEGATIVES) == ["0.25", "", ""]
    command += ["--sample=3", f"--usefulness={tmp_path / 'useful.csv'}"]
    module.main(command, load=lambda name: scripted.open(right_auditor))
    assert "<td>0.25</td>" in (tmp_path / "out/audit.html").read_text()
    (tmp_path / "useful.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="has no column caption, image, negative, usefulness"):
        module.read_usefulness(tmp_path / "useful.csv", NEGATIVES)


def test_what_the_checks_say():
    said = module.checked([*NEGATIVES[:1], Negative("a", "A red cat sits", "A red cat sits")])
    assert said == ["passed", "unchanged"]


def test_bad_files_are_named(tmp_path):
    (tmp_path / "negatives.json").write_text('[{"image_id": 1, "original": "x"}]')
    with pytest.raises(SystemExit, match="negatives.json, row 0: needs image_id, original"):
        module.main([str(tmp_path / "negatives.json"), "--model=scripted", "--out=x"])
    with pytest.raises(ValueError, match="no negatives"):
        audit(scripted.open(right_auditor), [])
