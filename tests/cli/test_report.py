"""`eat report`: what is on the page, in a browser too where there is one."""

import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eat_plugin.cli import main

pytest.importorskip("vl_convert", reason="the extra 'report' is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Collects the charts, headings, cells, pictures and sounds of a page."""

    def __init__(self, path):
        super().__init__()
        self.specs, self.headings, self.cells, self.media, self.links = [], [], [], [], []
        self._tag = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self._tag = "spec" if named.get("class") == "spec" else tag
        if tag in ("img", "audio"):
            self.media.append((tag, named["src"][:15]))
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self._tag == "spec":
            self.specs.append(json.loads(data))
        elif self._tag in ("h2", "summary", "h3") and data.strip():
            self.headings.append(data.strip())
        elif self._tag == "td":
            self.cells.append(data)

    def handle_endtag(self, tag):
        self._tag = ""


@pytest.fixture
def make_run(tmp_path, make_checkpoint, labelled):
    """Make a run with three updates, and a checkpoint on labelled clips."""
    for end in ("tsv", "lbl"):
        shutil.copy(labelled / f"eval.{end}", labelled / f"train.{end}")

    def make(name, kind, **changes):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        with (folder / "hydra_train.log").open("w") as log:
            for update in (10, 20, 30):
                values = {"loss": 3 - update / 20, "loss_cls": 1, "gnorm": 5, "lr": 1e-4}
                values |= {"ups": 2, "bsz": 6, "new_value": "0.5", "num_updates": update}
                log.write(json.dumps(values) + "\n")
            log.write(json.dumps({"eval_loss": 1, "eval_mAP": 0.5, "eval_num_updates": 30}) + "\n")
        made = make_checkpoint(kind, **{"task_data": str(labelled), **changes})
        made.rename(folder / "checkpoints" / "checkpoint_last.pt")
        return folder

    return make


def report(tmp_path, *arguments):
    out = tmp_path / "report.html"
    assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
    return Page(out)


def fields(page, name):
    """The values of a class of bars or marks on the page."""
    return [row[name] for spec in page.specs for row in spec["data"]["values"] if name in row]


def test_report__pre_training_has_curves_pictures_and_neighbours(make_run, tmp_path):
    page = report(tmp_path, make_run("first", "pretraining"))
    titles = [
        "Losses", "loss: training objective", "loss_cls: whole clip", "Validation", "Optimisation",
        "Other values", "new_value", "Speed", "clips per second", "Clips of the training split",
        "Nearest neighbours", "All options",
    ]  # fmt: skip
    assert [title for title in page.headings if title in titles] == titles
    loss = page.specs[0]["data"]["values"]
    assert [(row["update"], row["value"]) for row in loss] == [(10, 2.5), (20, 2.0), (30, 1.5)]
    speed = page.specs[-1]["data"]["values"]
    assert {row["value"] for row in speed} == {12.0}
    # Masks and features of two clips; three queries with three neighbours each, and their sounds.
    assert [tag for tag, _ in page.media].count("img") == 4 + 12
    assert [kind for tag, kind in page.media if tag == "audio"] == ["data:audio/mpeg"] * 12
    assert page.cells[page.cells.index("optimization.max_update") + 1] == "8"
    assert all(link.startswith("data:") for link in page.links)


def test_report__fine_tuning_has_the_confusion_matrix_and_the_worst_clips(make_run, tmp_path):
    folder = make_run("tuned", "classification", task_single_label=True)
    page = report(tmp_path, folder, "--clips", 8)
    assert "Worst-scored clips" in page.headings
    confusion = next(spec for spec in page.specs if spec.get("mark") == "rect")
    rows = confusion["data"]["values"]
    assert sum(row["clips"] for row in rows) == 8
    assert {row["true"] for row in rows} == {"A dog", "The rain", "A clock"}
    assert sorted(fields(page, "class")) == ["A clock", "A dog", "The rain"]
    assert [tag for tag, _ in page.media].count("audio") == 6 + 12


def test_report__several_runs_share_axes_and_differ_in_options(make_run, tmp_path):
    runs = make_run("one", "pretraining"), make_run("two", "pretraining", model_cls_loss=0.25)
    page = report(tmp_path, *runs, "--clips", 0)
    assert {row["run"] for row in page.specs[0]["data"]["values"]} == {"one", "two"}
    start = page.cells.index("model.cls_loss")
    assert page.cells[start : start + 3] == ["model.cls_loss", "1", "0.25"]
    assert not page.media


def test_report__options_are_the_same_if_another_process_composes_the_recipe(
    make_run, tmp_path, monkeypatch
):
    run = make_run("first", "pretraining")
    expected = report(tmp_path, run, "--clips", 0).cells
    monkeypatch.delitem(sys.modules, "fairseq", raising=False)  # as in a process of its own
    assert report(tmp_path, run, "--clips", 0).cells == expected


def test_report__without_a_checkpoint_it_has_the_curves(make_run, tmp_path, capsys):
    folder = make_run("new", "pretraining")
    shutil.rmtree(folder / "checkpoints")
    page = report(tmp_path, folder)
    assert len(page.specs) == 8
    assert "no checkpoint" in (tmp_path / "report.html").read_text()


def test_report__clips_that_are_gone_are_said_on_the_page(make_run, tmp_path, capsys):
    page = report(tmp_path, make_run("moved", "pretraining", task_data="/nowhere"))
    assert "Clips" in page.headings
    assert "/nowhere/train.tsv" in capsys.readouterr().err


def test_report__a_damaged_clip_is_named(make_run, tmp_path, labelled):
    (labelled / "audio" / "03.wav").write_bytes(b"no sound")
    page = report(tmp_path, make_run("damaged", "classification"))
    assert "Clips that cannot be used" in page.headings
    assert "03.wav" in page.cells


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--out", "report.png"], "ends in .html or .htm"),
        (["{run}/missing"], "is not a folder of a run"),
        (["{run}", "--device", "foo"], "the device is 'foo'; choose cpu"),
        (["{run}/checkpoints"], "no logged update"),
    ],
)
def test_report__mistakes_are_one_line(arguments, message, make_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run("run", "pretraining")
    assert main(["report", *(text.format(run=folder) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("report*"))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_report__is_drawn_in_a_browser_and_sorts_classes(make_run, tmp_path):
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    report(tmp_path, make_run("tuned", "classification", task_single_label=True))
    with browsers.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900}, offline=True)
            messages = []
            page.on("console", lambda message, to=messages: to.append(message.text))
            page.on("pageerror", lambda error, to=messages: to.append(str(error)))
            page.goto((tmp_path / "report.html").as_uri())
            page.wait_for_function(
                "document.querySelectorAll('.chart svg').length"
                " == document.querySelectorAll('.chart').length"
            )
            assert not messages
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            chart = page.locator(".chart", has=page.locator("select"))
            names, orders = {"A dog", "The rain", "A clock"}, []
            for choice in ("name", "index"):
                chart.locator("select").select_option(choice)
                page.wait_for_timeout(200)
                labels = chart.locator(".role-axis-label text").all()
                shown = {label.text_content(): label.bounding_box()["y"] for label in labels}
                orders.append(sorted(names & shown.keys(), key=shown.get))
            assert orders == [["A clock", "A dog", "The rain"], ["A dog", "The rain", "A clock"]]
        browser.close()


def test_healthy_run__is_packaged_and_has_the_losses():
    from eat_plugin.report.build import HEALTHY, read_healthy

    assert HEALTHY.parent == Path(main.__code__.co_filename).parents[1] / "report"
    assert {"loss", "loss_regression", "gnorm"} <= read_healthy()[1].keys()
