"""The page in a browser: it renders, filters, sorts, fetches nothing, and shows markup as text."""

import json
import os
import re
import shutil
import time

import numpy as np
import pyarrow.parquet
import pytest

from benchmarks import base
from benchmarks.base import Item, Outcomes, benchmark
from benchmarks.scorers import choice
from encoders import honest
from intervals import Mean
from report import Results, gallery, page, write
from report.figures import pareto

EVIL = '<script>document.title = "owned"</script><b>bold</b> & "quoted"'
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (90, 90, 90)}


@benchmark(choice, aggregates={"category_mean": Mean(["a", "b"])})
def run(number: int = 30):
    """Plain pictures, with captions of which one is markup."""
    for subset in "ab":
        for i in range(number):
            picture = np.full((40, 60, 3), list(COLOURS.values())[i % 4], np.uint8) + np.uint8(i)
            said = EVIL if (subset, i) == ("a", 0) else f"{subset} right {i}"
            yield Item(subset, str(i), [picture], (said, f"{subset} wrong {i}"))


@pytest.fixture(scope="module")
def results():
    models = {name: {"sugarcrepe": run(honest.Random(name))} for name in ("ours", "<i>theirs</i>")}
    return Results(models, source="ours", against="<i>theirs</i>")


@pytest.fixture(scope="module")
def browser():
    """Chromium as Debian has it, headless."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, results, tmp_path, request):
    """The page at a width, and what it said and asked for."""
    path = tmp_path / "report.html"
    path.write_text(page.render(results), encoding="utf-8")
    shown = browser.new_page(viewport={"width": getattr(request, "param", 1280), "height": 900})
    said, fetched = [], []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: fetched.append(request.url))
    shown.goto(path.as_uri())
    shown.wait_for_selector("html[data-ready]", timeout=30_000)
    yield shown
    assert not said
    assert all(url.startswith(("file:", "blob:", "data:")) for url in fetched)
    shown.close()


def eventually(condition):
    """Waits until it holds: the page answers a key or a click in its own time."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the page did not answer"
        time.sleep(0.05)


def rows(shown):
    return shown.locator("#examples table.panes > tbody > tr")


def pane(shown, name):
    """The list of values that a column is filtered by."""
    return shown.locator(f".dtsp-searchPane:has(input[placeholder={name}])")


def test_it_filters_by_type_and_searches(opened):
    every = rows(opened).count()
    assert every == 25  # a page of the table
    pane(opened, "type").get_by_text("a", exact=True).click()
    eventually(lambda: set(rows(opened).locator("td:nth-child(4)").all_inner_texts()) == {"a"})
    opened.get_by_role("button", name="Clear All").click()
    said = rows(opened).locator("td.texts li:first-child span:first-child").last.inner_text()
    opened.locator("#examples").get_by_label("Search:").fill(f'"{said}"')

    def found():
        texts = rows(opened).locator("td.texts").all_inner_texts()
        return len(texts) < every and all(said in text for text in texts)

    eventually(found)


def test_it_sorts_by_mouse_and_by_key(opened):
    header = opened.locator("#examples table.panes th", has_text="margin").first

    def margins():
        return [float(t) for t in rows(opened).locator("td:nth-child(6)").all_inner_texts()]

    header.click()
    eventually(lambda: margins() == sorted(margins()))
    header.locator("[role=button]").focus()
    opened.keyboard.press("Enter")
    eventually(lambda: margins() == sorted(margins(), reverse=True))


def test_filters_are_reached_and_set_by_keys(opened):
    pane(opened, "type").locator("tbody tr").first.focus()
    before = rows(opened).locator("td:nth-child(4)").all_inner_texts()
    opened.keyboard.press("Enter")
    assert len(set(before)) == 2
    eventually(lambda: len(set(rows(opened).locator("td:nth-child(4)").all_inner_texts())) == 1)


def test_markup_is_text(opened):
    assert opened.title() == "Scores of ours"
    assert opened.locator("#examples td.texts b").count() == 0
    assert opened.locator("h1 i, td i").count() == 0
    assert "<i>theirs</i>" in opened.locator("header").inner_text()


@pytest.mark.parametrize("opened", [390], indirect=True)
def test_a_phone_needs_no_scrolling_aside(opened):
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    first = rows(opened).first
    assert first.bounding_box()["width"] <= 390 and first.locator("img").first.is_visible()


def test_the_page_is_whole_without_a_browser(results):
    text = page.render(results)
    assert EVIL not in text.replace("\n", "")
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)
    assert text.count("<svg") >= 1 and len(text) < 3_000_000


def test_its_rows_are_what_the_two_judge_differently(results):

    examples, number = gallery.choose(results.models, most=1000)
    models = list(results.models.values())
    right = [
        np.concatenate([o.reading("strict") for o in m["sugarcrepe"].outcomes.values()])
        for m in models
    ]
    assert len(examples) == number == int(np.sum(right[0] != right[1]))
    alone = gallery.choose({"ours": models[0]}, most=1000)[1]
    assert alone == int(np.sum(~right[0]))


def test_what_is_written(results, tmp_path, capsys):
    write(results, tmp_path / "results.json", options={"sugarcrepe": {"number": 30}})
    content = json.loads((tmp_path / "results.json").read_text())
    ours = results.models["ours"]["sugarcrepe"]
    theirs = results.models["<i>theirs</i>"]["sugarcrepe"]
    assert content["benchmarks"]["sugarcrepe"]["scores"]["a"]["value"] == ours["a"].value
    difference = content["against"]["differences"]["sugarcrepe"]["category_mean"]
    assert difference["value"] == pytest.approx(
        ours["category_mean"].value - theirs["category_mean"].value
    )
    assert "sugarcrepe: difference" in capsys.readouterr().out
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(table) == 2 * 2 * 30
    own = [row for row in table if row["model"] == "ours" and row["subset"] == "a"]
    assert 100 * np.mean([row["right"] for row in own]) == pytest.approx(ours["a"].value)
    assert own[0]["texts"][0] == EVIL and own[0]["image"][0].startswith("sha256:")
    assert all((row["scores"][0] > row["scores"][1]) == row["right"] for row in own)
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0].startswith("model,benchmark,name,value") and len(lines) == 1 + 2 * 3
    assert (tmp_path / "report.html").exists()


def test_published_rows_stand_beside_ours(results, shared):
    board = page.scoreboard(results, str(shared / "data/published/vl_compo_results.csv"))
    assert [row[0] for row in board[:2]] == list(results.models)
    cited = {(model, source): values for model, source, values in board}
    assert cited["NegCLIP", "vl_compo"] == [83.7] and cited["CE-CLIP", "vl_compo"] == [85.7]
    assert cited["NegCLIP coco-ft", "vl_compo_results.csv"] == [pytest.approx(83.6875, abs=1e-3)]
    assert len(board) > 202


def test_cited_figures_are_the_published_ones(shared):
    import files

    published = files.read_table(shared / "data/published/vl_compo_results.csv", ["arch"])
    names = {"CLIP": ("ViT-B-32", "openai"), "NegCLIP": ("NegCLIP", "coco-ft"),
             "CE-CLIP": ("CE-CLIP", "coco-ft")}  # fmt: skip
    known = {(row["arch"], row["pretrained"]): row for _, row in published}
    checked = 0
    for _, row in files.read_table(page.HERE / "published.csv", page.PUBLISHED_COLUMNS):
        if row["source"] == "vl_compo":
            found = float(known[names[row["model"]]][row["benchmark"]])
            assert float(row["value"]) == pytest.approx(found, abs=0.051)
            checked += 1
    assert checked == 21


def test_the_pareto_front():
    points = [(1, 5), (2, 4), (2, 3), (3, 4), (4, 1), (0, 5)]
    assert pareto(points) == [(1, 5), (3, 4), (4, 1)]


def test_every_headline_is_a_figure_of_its_benchmark():
    from report.axes import HEADLINES

    known = set(base.available())
    assert {headline.benchmark for headline in HEADLINES} <= known


def test_curves_of_a_run(results, tmp_path):
    log = [{"step": 0, "sugarcrepe/category_mean": 50.0, "retrieval/text_to_image_recall@1": 9.0},
           {"step": 0, "loss": 1.0},
           {"step": 5, "sugarcrepe/category_mean": 60.0,
            "retrieval/text_to_image_recall@1": 8.0}]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, log)))
    assert "During training" in page.render(results, workdir=tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(log[0]))
    assert "During training" not in page.render(results, workdir=tmp_path)


def test_similarities_stand_beside_the_texts_that_they_are_of():
    """Two models whose strongest wrong texts come in another order, and that kept others."""
    item = Item("", "1", [np.zeros((4, 4, 3), np.uint8)], ("right", "a", "b", "c"))
    kept = (("right", "a", "b"), (3.0, 2.0, 1.0)), (("right", "b", "c"), (1.0, 5.0, 4.0))
    models = {}
    for name, (texts, row), right in zip(("ours", "theirs"), kept, (True, False), strict=True):
        scores = [np.array(row, np.float32)]
        outcome = Outcomes(
            [item], np.array([right]), np.array([False]), scores, [texts], np.array([1 / 4])
        )
        models[name] = {"toy": base.summarise({"all": outcome}, {})}
    (example,), _ = gallery.choose(models)
    shown = dict(example.texts)
    assert shown["right"] == [3, 1] and shown["b"] == [1, 5]
    assert shown["a"][0] == 2 and np.isnan(shown["a"][1])
