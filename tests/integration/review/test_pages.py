"""The pages in a browser, on a real server and a real workspace: the whole loop, by clicking alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest

from tests.integration.review.conftest import CELLS, LEFT_OUT, LONG, QUOTED, RIGHT_TO_LEFT, SCRIPT, in_process
from tests.integration.review.driver import Server, Visit, commanded

MOST_ACTIONS = 12  # that the whole loop may take
LEAST_RECALL = 0.9
COLOUR = "document.getElementById('map').dataset.colour"
GROUP = "document.querySelector('#evidence [data-group]').dataset.group"


def recall(annotated: Path, truth: Path) -> float:
    """Return the share of the cells of the type that was left out that are annotated so."""
    import anndata as ad

    given = pd.read_csv(truth, index_col=0, dtype=str)["cell_type"]
    obs = ad.read_h5ad(annotated).obs
    answered = obs["canal_cell_type"].astype(str)
    return float((answered[given[given == LEFT_OUT].index] == LEFT_OUT).mean())


def test_a_type_that_was_left_out_is_taught_by_clicking(browser: Any, lab: Path) -> None:
    """Find, name, teach, promote, annotate: few actions, the type is answered, and nothing is asked of anybody else."""
    with commanded(lab / "ws", lab / "query.h5ad", "--user", "ann") as told:
        visit = Visit(browser, told["link"])

        # The first group is the largest novel one, and is open.
        visit.wait("#evidence [data-group^=novel]")
        visit.fill("#name", LEFT_OUT)
        visit.click("#give-name")
        visit.wait("#evidence .tag.done")
        visit.click("nav >> text=Teach")
        visit.click("#teach")
        visit.wait("#promote")
        visit.click("#promote")
        visit.wait("#annotate")
        visit.click("#annotate")
        visit.wait("#annotated .good")

        assert visit.actions <= MOST_ACTIONS
        assert visit.elsewhere == []
        assert visit.errors == []
        visit.close()
    assert recall(lab / "query.annotated.h5ad", lab / "truth.csv") >= LEAST_RECALL


def test_hostile_names_are_shown_as_text(browser: Any, server: Server) -> None:
    """Markup in types, genes, comments and names of users is text on every page, and no script of it runs."""
    visit = Visit(browser, server.links[1])
    page = visit.page

    # Types of the model, in the legend and in the evidence; a gene with quotes.
    visit.wait("#facts")
    assert SCRIPT in page.inner_text("#legend")
    assert page.inner_text("header .name") == "bob <i>b</i>"
    gene = page.locator("button[data-gene]").evaluate_all("all => all.map(one => one.dataset.gene)")
    quoted = QUOTED.upper()  # canal reads symbols of genes in capitals
    assert quoted in gene
    page.locator("button[data-gene]").nth(gene.index(quoted)).click()
    visit.until(COLOUR, f"gene:{quoted}")
    # Names and comments that people give.
    for name in ('<b onmouseover=alert(2)>plasma</b> "', LONG, RIGHT_TO_LEFT):
        visit.fill("#name", name)
        visit.click("#give-name")
        visit.until("document.querySelector('#queue [aria-current=true] strong')?.textContent", name)
    visit.fill("#comment", "remark <img src=x onerror=alert(1)>")
    visit.page.press("#comment", "Enter")
    visit.wait("text=remark <img src=x onerror=alert(1)>")
    # The type-ahead.
    visit.fill("#name", "<scr")
    visit.wait("#name-list li")
    assert SCRIPT in page.inner_text("#name-list")
    # Pages beside it.
    for place in ("decisions", "teach", "stages", f"nothing/{SCRIPT}"):
        page.goto(f"{visit.address}/{place}")
        assert page.locator("script:not([src])").count() == 0
        assert page.locator("main img, main script").count() == 0

    # The one error is the page that does not exist.
    assert [error for error in visit.errors if "404" not in error] == []
    assert visit.elsewhere == []
    # Nothing is wider than the screen.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.close()


def test_everything_goes_by_keyboard(browser: Any, server: Server) -> None:
    """Next group, name, comment, undo, a gene, a selection from the legend: without the mouse."""
    visit = Visit(browser, server.links[0])
    press = visit.page.keyboard.press
    visit.wait("#facts")
    first = visit.group

    press("j")
    visit.until(f"{GROUP} !== {json.dumps(first)}", True)
    press("k")
    visit.until(GROUP, first)
    press("n")
    visit.page.keyboard.type("plasma")
    press("Enter")
    visit.wait("#evidence .tag.done")
    press("u")
    visit.wait("#evidence .tag.open")
    press("g")
    visit.page.keyboard.type("GENE4")
    visit.wait("#gene-list li")
    press("ArrowDown")
    press("Enter")
    visit.until(f"{COLOUR}.startsWith('gene:GENE4')", True)
    assert visit.page.input_value("#by") == "gene"
    press("Escape")
    visit.page.select_option("#by", "type")
    visit.until(COLOUR, "type")
    visit.page.focus("#legend button")
    press("Enter")
    visit.wait("#selection:not([hidden])")
    visit.page.focus("#assign-into")
    visit.page.keyboard.type("chosen")
    press("Tab")
    press("Enter")
    visit.wait("#queue strong:text-is('chosen')")

    assert visit.errors == []
    visit.close()


def test_who_is_quick_stays_in_the_field(browser: Any, server: Server) -> None:
    """A field that is entered as soon as a group is there keeps what is typed: its letters are no keys."""
    visit = Visit(browser, server.links[0])
    visit.wait("#facts")
    heard = "document.addEventListener('htmx:%s', (e) => { if (e.detail.target.id === 'evidence') %s; })"
    visit.page.evaluate(heard % ("afterSwap", "document.getElementById('name').focus()"))
    visit.page.evaluate(heard % ("afterSettle", "document.body.dataset.settled = 'yes'"))

    visit.page.keyboard.press("j")

    visit.wait("body[data-settled]")
    assert visit.page.evaluate("document.activeElement.id") == "name"
    visit.close()


def test_who_is_quick_undoes(browser: Any, server: Server) -> None:
    """A key pressed as soon as a decision is there does what it says: the browser does not send the form by itself."""
    visit = Visit(browser, server.links[0])
    visit.wait("#facts")
    # Before htmx has settled, and once.
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'u'}))"
    once = "document.querySelector('#evidence .tag.done') && !document.body.dataset.undone"
    at_once = f"if ({once}) {{ document.body.dataset.undone = 1; {press}; }}"
    visit.page.evaluate(f"document.addEventListener('htmx:afterSwap', () => {{ {at_once} }})")

    visit.click("#doublet")

    visit.wait("body[data-undone]")
    visit.wait("#evidence .tag.open")
    assert "action=undo" not in visit.page.url
    assert visit.errors == []
    visit.close()


def test_a_lasso_splits_a_group(browser: Any, server: Server) -> None:
    """What is drawn around is selected, looked at, and split off; another browser sees it without being asked to."""
    visit, other = Visit(browser, server.links[0]), Visit(browser, server.links[1])
    box = visit.page.locator("#cells").bounding_box()
    mouse = visit.page.mouse
    middle, height = box["x"] + box["width"] / 2, box["height"]
    # The left half of the map.
    mouse.move(box["x"] + 2, box["y"] + 2)
    mouse.down()
    for place in ((middle, box["y"] + 2), (middle, box["y"] + height - 2), (box["x"] + 2, box["y"] + height - 2)):
        mouse.move(*place, steps=3)
    mouse.up()
    visit.wait("#selection:not([hidden])")
    selected = int(visit.page.get_attribute("#map", "data-selected"))
    assert 0 < selected < CELLS
    visit.click("#look-selection")
    visit.wait("#evidence [data-group=selection] #facts")
    visit.click("#split-selection")
    visit.wait(f"#queue >> text=/{selected} cells/")

    other.wait(f"#queue >> text=/{selected} cells/")
    assert visit.errors == []
    visit.close()
    other.close()


def test_the_second_person_approves_or_differs(browser: Any, server: Server) -> None:
    """Who decided cannot approve it; another can; who says otherwise makes a conflict that is shown."""
    ann, bob = Visit(browser, server.links[0]), Visit(browser, server.links[1])
    ann.wait("#facts")
    ann.fill("#name", "DC")
    ann.click("#give-name")
    ann.wait("#evidence .tag.done")
    assert ann.page.locator("#approve").count() == 0
    bob.page.reload()
    bob.wait("#approve")
    bob.click("#approve")
    bob.wait("text=Approved by")
    ann.page.goto(f"{ann.address}/decisions")
    assert "approve" in ann.page.inner_text("main")
    # Bob changes his mind.
    bob.fill("#name", "B")
    bob.click("#give-name")
    bob.wait("#evidence .tag.conflict")
    ann.page.goto(f"{ann.address}/decisions")
    assert "In conflict" in ann.page.inner_text("main")
    ann.close()
    bob.close()


def test_the_open_group_shows_what_another_decides(browser: Any, server: Server) -> None:
    """Verdict, approval, conflict, comment and split of another person are seen without a reload; a text stays."""
    ann, bob = Visit(browser, server.links[0]), Visit(browser, server.links[1])
    for visit in (ann, bob):
        visit.wait("#evidence [data-group=novel-1] #facts svg.dots")
    bob.fill("#comment", "half a sentence")
    ann.fill("#name", "DC")
    ann.click("#give-name")

    # Bob sees who said what and may approve it; what he writes and the evidence are still there.
    bob.wait("#standing .tag.done")
    bob.wait("#approve")
    assert "ann: DC" in bob.page.inner_text("#standing")
    assert bob.page.input_value("#comment") == "half a sentence"
    assert bob.page.locator("#facts svg.dots").count() == 1
    bob.click("#approve")
    ann.wait("#standing >> text=Approved by")
    # A conflict and a comment.
    bob.fill("#name", "B")
    bob.click("#give-name")
    bob.wait("#evidence .tag.conflict")
    bob.fill("#comment", "no CLEC9A")
    bob.page.press("#comment", "Enter")
    ann.wait("#standing .tag.conflict")
    ann.wait("#remarks >> text=no CLEC9A")
    # Bob splits the group that Ann looks at; she can decide on it no longer, and goes on to a part of it.
    halve = "async () => { map.select(new Uint32Array(await bytes('/map/rows?group=novel-1')).slice(9)); "
    bob.page.evaluate(halve + "await sendSelection('split') }")
    ann.wait("#standing .warning >> text=split or merged since")
    assert ann.page.locator("#name").count() == 0
    ann.click("#queue >> text=/part of/")
    ann.wait("#evidence [data-group$=-a] #name")
    for visit in (ann, bob):  # nothing of that group is being fetched any more
        visit.wait("#evidence [data-group$=-a] #facts svg.dots")
    # He takes it back: her group is no more, which she is told.
    bob.click("#undo")
    ann.wait("#message >> text=/is no more/")
    ann.wait("#evidence [data-group=novel-1] #name")
    for visit in (ann, bob):
        assert visit.errors == []
        visit.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark(browser: Any, server: Server, theme: str) -> None:
    """The page is as the system prefers, and the other way round by a key."""
    visit = Visit(browser, server.links[0], color_scheme=theme)

    assert visit.page.get_attribute("html", "data-theme") == theme
    visit.page.keyboard.press("t")
    assert visit.page.get_attribute("html", "data-theme") != theme
    visit.close()


def test_a_stage_that_is_gone_is_told_on_the_page(browser: Any, lab: Path, server: Server) -> None:
    """Where the workspace loses what the page needs, the page says so instead of staying empty."""
    visit = Visit(browser, server.links[0])
    visit.wait("#facts")
    shutil.rmtree(lab / "ws" / "registry")
    # A part of the evidence that was asked for, and a page of its own.
    visit.click("summary >> text=What each stage would have said")
    visit.wait("details .warning >> text=/registry/")
    visit.page.goto(f"{visit.address}/stages")
    assert "registry" in visit.page.inner_text("main .warning")
    visit.close()


def test_a_folder_that_cannot_be_written_is_told_on_the_page(browser: Any, lab: Path, server: Server) -> None:
    """A decision, the cells to teach, the reviewed file: one sentence each, and nothing is taken for done."""
    visit = Visit(browser, server.links[0])
    visit.wait("#facts")
    visit.fill("#name", LEFT_OUT)
    visit.click("#give-name")
    visit.wait("#evidence .tag.done")
    # The folder of the cells that were taught: a file stands in its place, as a folder without the right would refuse.
    (lab / "query.h5ad.review" / "taught").write_text("in the way")
    visit.page.goto(f"{visit.address}/teach")
    visit.click("#teach")
    visit.wait("#message >> text=/taught.* cannot be written/")
    assert visit.page.locator("#teaching [data-state]").count() == 0
    # The file that is to be written: a folder stands there.
    (lab / "query.reviewed.h5ad").mkdir()
    visit.page.goto(f"{visit.address}/decisions")
    visit.click("text=Write the reviewed file")
    visit.wait("#message >> text=/query.reviewed.h5ad is/")
    # The file of decisions.
    visit.page.goto(visit.address)
    visit.wait("#facts")
    decisions = lab / "query.h5ad.review.jsonl"
    before = decisions.rename(lab / "elsewhere").read_bytes()
    decisions.mkdir()
    visit.fill("#name", "B")
    visit.click("#give-name")
    visit.wait("#message >> text=/jsonl cannot be written: Is a directory/")
    assert (lab / "elsewhere").read_bytes() == before
    visit.close()


def test_too_many_cells_for_a_umap_are_told_on_the_page(
    browser: Any, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map says what it shows instead, and so do the notes on the file, which the command prints."""
    monkeypatch.setattr("canal.review.maps.MOST_UMAP", 100)
    with h5py.File(lab / "query.h5ad", "r+") as file:
        del file["obsm/X_umap"]
    with in_process(lab) as server:
        visit = Visit(browser, server.links[0])
        assert "more than 100" in visit.page.inner_text("#map-note")
        visit.click("#notes summary")
        visit.wait("#notes >> text=/add X_umap to the file/")
        visit.close()
