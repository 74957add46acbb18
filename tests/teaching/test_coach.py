"""The coach: its parsers against answers as models give them, its prompts, counted failures."""

import json

import pytest

from language import scripted
from teaching import agreement, coach

LINES = ["teacher: Why is that so?", "student: Because two halves, I think, make a whole.", "yes"]


@pytest.mark.parametrize(
    ("text", "rating", "reason"),
    [
        ("6", 6, None),
        (" 5.5\n", 5.5, None),
        ("Reasoning: warm, 3 times.\nRating (only a number between 1-7): 4", 4, None),
        ("They rate each other. RATING: 2", 2, None),
        ("", None, "empty"),
        ("Rating:", None, "empty"),
        ("I would give this a 6", None, "more than 5 words"),
        ("N/A", None, "not applicable"),
        ("nan", None, "not applicable"),
        ("None", None, "not applicable"),
        ("six", None, "not a number"),
        ("6/7", None, "not a number"),
        ("8", None, "outside the scale"),
        ("0", None, "outside the scale"),
        ("inf", None, "outside the scale"),
        ("-nan", None, "outside the scale"),
    ],
)
def test_ratings(text, rating, reason):
    assert coach.parse_rating(text, (1, 7)) == (rating, reason)


ANSWER = """:
1. Line number: 1, Segment: "Why is that so?", Reason: Asks for a reason.
It waits, too.
2) Line number: 2, Segment: "two halves, I think, make a "whole"", Reason: "Because" it says why
3. Line 3, Segment: “Why is that so”, Reason: quoted from elsewhere
4. Something else entirely.
5. N/A
6. Line number: 1, Segment: "yes", Reason: one too many

Bad examples:
1. Line number: 9, Segment: "yes", Reason: no such line
2. Line number: 3, Segment: "maybe", Reason: nobody says so
3. Line number: 2-3, Segment: "Because two halves", Suggestion: a span of lines
"""


def test_points_are_read_checked_and_counted():
    points, failures = coach.parse_points(ANSWER, LINES)
    assert [(p.kind, p.line, p.quoted) for p in points] == [
        ("good", 1, "here"),
        ("good", 2, "here"),
        ("good", 3, "elsewhere"),
        ("bad", 3, "nowhere"),
        ("bad", 2, "here"),
    ]
    assert points[0].text == "Asks for a reason. It waits, too."
    assert points[1].text == '"Because" it says why'
    assert failures == {"malformed": 1, "empty": 1, "beyond the fifth": 1, "no such line": 1}


def test_an_answer_without_bad_examples_says_so():
    points, failures = coach.parse_points("\n1. Line number: 3, Segment: yes", LINES)
    assert not points and failures == {"no section": 1, "malformed": 1}
    assert coach.parse_points("I cannot help.", LINES, ("suggestion",)) == ([], {})


def test_published_prompts_ask_in_the_form_that_is_parsed(shared):
    """The example rows in the released prompt files are of the grammar of parse_points."""
    folder = shared / "data/teaching/coach/coach_prompts"
    files = [*folder.glob("examples_line_reason/*/*.txt"), *folder.glob("sugg*/*/*.txt")]
    assert len(files) == 8
    for file in files:
        text = file.read_text().partition("Format your answer as:")[2]
        text = text.replace("<specify line number>", "1").replace("<copied from transcript>", "yes")
        kinds = ("suggestion",) if "SUGG" in file.name else ("good", "bad")
        points, _ = coach.parse_points(text, ["yes"], kinds)
        assert [p.quoted for p in points] == ["here"] * len(kinds), file


def test_prompts_hold_what_they_ask_about():
    for code, aspect in coach.ASPECTS.items():
        low, high = aspect.scale
        assert (low, high) == ((1, 7) if code.startswith("CL") else (1, 3))
        points = [point for group in aspect.levels for point in group]
        assert points == list(range(low, high + 1))
        plain, described, reasoned = (
            coach.rating_prompt(aspect, LINES, style) for style in coach.STYLES
        )
        for prompt in (plain, described, reasoned):
            assert "2. student: Because" in prompt and aspect.definition in prompt
        assert all(text in described and text not in plain for text in aspect.levels.values())
        assert reasoned.endswith("Reasoning:") and "Rating:" in reasoned
        assert coach.examples_prompt(aspect, LINES).endswith("Good examples")
    with pytest.raises(ValueError, match="unknown style 'DA'; there are: numerical"):
        coach.rating_prompt(coach.ASPECTS["CLPC"], LINES, "DA")


def test_a_scripted_coach_end_to_end():
    """The model's ratings come back in order, and what is none is counted."""

    def answer(prompt, rng):
        if "suggestions how" in prompt:
            return '\n1. Line number: 3, Segment: "yes", Suggestion: Ask why.'
        if "good examples of" in prompt:
            return ANSWER
        return "n/a" if "quiet" in prompt else str(min(7, prompt.count("thanks")))

    model = scripted.open(answer)
    transcripts = [["thanks"] * n for n in (3, 1, 0)] + [["quiet"]]
    rated = coach.rate(model, transcripts, "CLPC")
    assert rated.values == [3, 1, None, None]
    assert rated.failures == {"outside the scale": 1, "not applicable": 1}
    assert model.calls["generate"] == 4
    found = coach.highlights(model, LINES, "EXPL")
    assert len(found.values[0]) == 5 and found.failures["malformed"] == 1
    (advice,) = coach.suggestions(model, LINES).values
    assert [(p.kind, p.text, p.quoted) for p in advice] == [("suggestion", "Ask why.", "here")]
    with pytest.raises(ValueError, match="unknown aspect 'CL'"):
        coach.rate(model, transcripts, "CL")


def test_command_writes_scores_for_the_agreement_harness(tmp_path, capsys):
    rows = [{"item": n, "lines": ["thanks"] * n} for n in (3, 1, 9)]
    (tmp_path / "lessons.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [str(tmp_path / "lessons.jsonl"), "--aspect=CLPC", "--model=scripted"]
    model = scripted.open(lambda prompt, rng: str(prompt.count("thanks")))
    coach.main([*command, f"--out={tmp_path / 'scores.csv'}"], load=lambda name: model)
    assert agreement.read_scores(tmp_path / "scores.csv") == {"CLPC": {"3": 3.0, "1": 1.0}}
    assert "2 of 3 rated" in (out := capsys.readouterr().out) and "1 (outside the scale)" in out
    for text, message in (('{"item": 1}', "line 1: needs an item"), ("", "holds no transcript")):
        (tmp_path / "lessons.jsonl").write_text(text)
        with pytest.raises(SystemExit, match=message):
            coach.main([*command, "--out=x"], load=lambda name: model)
