"""Agreement with human ratings: published figures, closed forms, and input that is not in order."""

import csv
import json

import numpy as np
import pytest

from teaching import agreement as module
from teaching.agreement import Rated, agreement

# Spearman, Pearson and quadratic kappa that the paper's scatter plots hold, recovered from the
# plots; Pearson is also printed on them. instrument item -> prompt -> statistic.
SPEARMAN = {
    "numerical": [0.004, 0.355, -0.009, -0.008, 0.025, -0.052, 0.298],
    "numerical_descriptions": [0.047, 0.232, 0.067, 0.127, 0.044, 0.058, 0.306],
}
ITEMS = ("CLPC", "CLBM", "CLINSTD", "EXPL", "REMED", "LANGIMP", "SMQR")
PEARSON = {
    "CLPC": (-0.025, 0.047),
    "CLBM": (0.371, 0.269),
    "CLINSTD": (0.016, 0.091),
}


@pytest.fixture(scope="module")
def points(shared):
    """(item, prompt) -> (human ratings, the model's), recovered from published plots."""
    pairs = {}
    with (shared / "data/teaching/coach/coach_points.csv").open() as file:
        for row in csv.DictReader(file):
            pair = float(row["human"]), float(row["model"])
            pairs.setdefault((row["item"], row["prompt"]), []).append(pair)
    return {key: np.array(rows).T for key, rows in pairs.items()}


def measured(human, model, **options):
    rated = [Rated((x,), str(i)) for i, x in enumerate(human)]
    return agreement(rated, model, **{"resamples": 0, **options})


@pytest.mark.parametrize("prompt", SPEARMAN)
def test_published_rank_correlations(points, prompt):
    for item, published in zip(ITEMS, SPEARMAN[prompt], strict=True):
        value = measured(*points[item, prompt]).statistics["spearman"].value
        assert value == pytest.approx(published, abs=6e-4), item


def test_published_pearson_and_kappa(points):
    for item, published in PEARSON.items():
        for prompt, value in zip(SPEARMAN, published, strict=True):
            found = measured(*points[item, prompt]).statistics["pearson"].value
            assert found == pytest.approx(value, abs=6e-4), (item, prompt)
    for item, value in (("CLBM", 0.302), ("CLPC", -0.014)):
        found = measured(*points[item, "numerical"]).statistics["quadratic_kappa"].value
        assert found == pytest.approx(value, abs=6e-4)


def test_collapsed_ratings_are_named(points):
    found = measured(*points["CLPC", "numerical"])
    assert found.commonest["scorer"] == (6.0, 0.86)
    assert found.collapsed == ["scorer"]
    assert "86% of the scorer ratings are 6: collapsed" in found.table("CLPC")
    assert measured(*points["EXPL", "numerical"]).commonest["scorer"] == (2.0, 174 / 203)
    assert measured(*points["SMQR", "numerical"]).collapsed == []


@pytest.fixture(scope="module")
def lessons(shared):
    with (shared / "data/teaching/coach/coach_class_data.csv").open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return np.array([float(row[name] or "nan") for row in rows])


def rank_correlation(x, y):
    both = np.isfinite(x) & np.isfinite(y)
    return measured(x[both], y[both]).statistics["spearman"].value


def test_class_ratings(lessons):
    """Means and correlations of the 6,206 human ratings, as the specification counts them."""
    for item, mean in (("CLPC", 4.667), ("CLBM", 6.088), ("CLINSTD", 3.939)):
        assert np.nanmean(column(lessons, item)) == pytest.approx(mean, abs=6e-4)
    for a, b, value in (
        ("CLPC", "CLBM", 0.084),
        ("CLPC", "CLINSTD", 0.361),
        ("CLBM", "CLINSTD", 0.147),
    ):
        found = rank_correlation(column(lessons, a), column(lessons, b))
        assert found == pytest.approx(value, abs=6e-4)
    at = {(row["OBSID"], row["RATERID"], int(row["CHAPNUM"])): row for row in lessons}
    pairs = [(row, at[o, r, c + 1]) for (o, r, c), row in at.items() if (o, r, c + 1) in at]
    before, after = zip(*pairs, strict=True)
    for item, value in (("CLPC", 0.788), ("CLBM", 0.696), ("CLINSTD", 0.655)):
        found = rank_correlation(column(before, item), column(after, item))
        assert found == pytest.approx(value, abs=6e-4)


def test_no_human_ceiling_where_almost_nothing_is_rated_twice(lessons, tmp_path, capsys):
    """5 of 6,201 segments have two raters: an agreement of these would say nothing."""
    ratings, scores = tmp_path / "ratings.csv", tmp_path / "scores.csv"
    items = [f"{row['OBSID']}/{row['CHAPNUM']}" for row in lessons]
    with ratings.open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "rating", "group"])
        rows.writerows(
            (item, row["CLPC"], row["OBSID"]) for item, row in zip(items, lessons, strict=True)
        )
    scores.write_text("item,score\n" + "".join(f"{item},5\n" for item in dict.fromkeys(items)))
    module.main([str(ratings), str(scores), "--resamples=0", f"--output={tmp_path / 'out.json'}"])
    out = json.loads((tmp_path / "out.json").read_text())["keys"][""]
    assert out["ceiling"] is None and out["rated_twice"] == 5
    assert out["statistics"]["spearman"]["value"] is None  # the scorer says 5 of everything
    assert "human ceiling: none (5 items have two raters)" in capsys.readouterr().out


def weighted_kappa(x, y, categories):
    """Cohen's kappa from the table of counts, the textbook's way."""
    table = np.zeros((categories, categories))
    for a, b in zip(x, y, strict=True):
        table[int(a), int(b)] += 1 / len(x)
    weights = np.subtract.outer(np.arange(categories), np.arange(categories)) ** 2
    return 1 - (weights * table).sum() / (weights * np.outer(table.sum(1), table.sum(0))).sum()


def test_quadratic_kappa_equals_the_table_of_counts():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 5, (2, 30)).astype(float)
        assert module.quadratic_kappa(x, y) == pytest.approx(weighted_kappa(x, y, 5))


def test_closed_forms():
    human = np.arange(1.0, 8)
    same = measured(human, human).statistics
    assert {name: e.value for name, e in same.items() if name != "kendall_tau_c"} == pytest.approx(
        dict.fromkeys(same.keys() - {"kendall_tau_c"}, 1.0)
    )
    opposite = measured(human, 8 - human).statistics
    assert opposite["spearman"].value == pytest.approx(-1)
    assert opposite["kendall_tau_b"].value == pytest.approx(-1)
    assert opposite["quadratic_kappa"].value == pytest.approx(-1)
    shifted = measured(human, human + 1).statistics
    assert shifted["exact"].value == 0 and shifted["within_one"].value == 1
    # (1, 2, 2, 3) against (1, 2, 3, 3): 4 concordant of 6, one tie on each side.
    tied = measured(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 3])).statistics
    assert tied["kendall_tau_b"].value == pytest.approx(4 / 5)


def test_a_score_that_is_no_rating_has_no_kappa():
    found = measured(np.array([1.0, 2, 3, 4]), np.array([0.21, 0.3, 0.28, 0.4]))
    assert not {"quadratic_kappa", "exact", "within_one"} & found.statistics.keys()
    assert found.statistics["kendall_tau_b"].value == pytest.approx(4 / 6)


def test_ceiling_is_what_one_rater_tells_of_the_others():
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 5, 400)
    raters = np.clip(truth + rng.integers(-1, 2, (3, 400)), 1, 4).astype(float)
    rated = [Rated(tuple(row), str(i)) for i, row in enumerate(raters.T)]
    found = agreement(rated, truth, resamples=50)
    others = [(raters[:i].sum(0) + raters[i + 1 :].sum(0)) / 2 for i in range(3)]
    pooled = rank_correlation(np.concatenate(others), np.concatenate(raters))
    assert found.ceiling["spearman"].value == pytest.approx(pooled)
    exact = np.mean([raters[i] == raters[j] for i in range(3) for j in range(3) if i != j])
    assert found.ceiling["exact"].value == pytest.approx(exact)
    assert found.statistics["spearman"].value > found.ceiling["spearman"].value


def test_intervals_cover_and_know_of_groups():
    """Twenty copies of each of 20 items are 20 observations and not 400."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    copies = [(a, b, str(i)) for i, (a, b) in enumerate(zip(x, y, strict=True)) for _ in range(20)]

    def width(groups):
        rated = [Rated((a,), g) for (a, _, _), g in zip(copies, groups, strict=True)]
        found = agreement(rated, [b for _, b, _ in copies], resamples=300).statistics["pearson"]
        assert found.low < found.value < found.high
        return found.high - found.low

    grouped, single = width([g for _, _, g in copies]), width(map(str, range(400)))
    assert grouped / single == pytest.approx(20**0.5, rel=0.35)


def test_difference_is_paired():
    rng = np.random.default_rng(3)
    x = rng.normal(size=100)
    rated = [Rated((value,), str(i)) for i, value in enumerate(x)]
    before = x + rng.normal(size=100)
    same = module.difference("spearman", rated, before, 2 * before + 1, resamples=50)
    assert same == (0, 0, 0)
    worse = module.difference("spearman", rated, before, rng.normal(size=100), resamples=200)
    assert worse.high < 0


@pytest.mark.parametrize(
    ("ratings", "scores", "message"),
    [
        ("item,rating\na,x\n", "item,score\na,1\n", "ratings.csv line 2: rating is 'x'"),
        ("item,rating\na,nan\n", "item,score\na,1\n", "line 2: rating is 'nan'"),
        ("item,mark\na,1\n", "item,score\na,1\n", "no column rating"),
        ("item,rating\na,1\n", "item,score\na,1\na,2\n", "line 3: item a is scored a second time"),
        ("item,rating\na,1\n", "item,score\nb,1\n", "no item is both rated and scored"),
        ("item,rating\na,1,2\n", "item,score\na,1\n", "line 2: 3 fields, but the heading has 2"),
        ("item,rating,group\na,1,g\na,2,h\n", "item,score\na,1\n", "line 3: item a is of group g"),
    ],
)
def test_bad_input_is_named(tmp_path, ratings, scores, message):
    files = tmp_path / "ratings.csv", tmp_path / "scores.csv"
    for file, text in zip(files, (ratings, scores), strict=True):
        file.write_text(text)
    with pytest.raises(SystemExit) as error:
        module.main([*map(str, files)])
    assert message in error.value.code


def test_raters_stand_in_columns_or_in_rows(tmp_path):
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    wide.write_text("\ufeffitem,key,rating,rating_2\na,k,1,2\nb,k,3,\n")
    long.write_text("item,key,rating\na,k,1\na,k,2\nb,k,3\n")
    assert module.read_ratings(wide) == module.read_ratings(long)
    assert module.read_ratings(long)["k"]["a"].ratings == (1, 2)
