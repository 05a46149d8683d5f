"""The report is one page that needs nothing else, says what was found, and lets no name become markup."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from identkit import report
from identkit.theorem import TheoremCheck, verify
from identkit.verdict import Certificate, Level

LINEAR = "z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements and the text of a page; an element that is not closed where it should be is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def collapsed() -> TheoremCheck:
    return verify(LINEAR, [[0.3], [2.0]], at={"w": 0}, setting="w = 0")


@pytest.fixture(scope="module")
def informed() -> TheoremCheck:
    return verify(LINEAR, [[0.1 * i] for i in range(25)], at={"w": 1}, setting="w = 1")


@pytest.fixture
def written(tmp_path):
    """Write a report and read it back."""

    def read(*checks: TheoremCheck, **changes: Any) -> Page:
        usual: dict[str, Any] = {
            "title": "Two decoders",
            "checks": checks,
            "figures": {"lines": (figure(), "Two lines.")},
            "summary": ["The data are drawn here."],
            "command": "identkit verify --suite classical",
            "versions": {"torch": "2.13.0"},
        }
        path = report.write(tmp_path / "new" / "report.html", **{**usual, **changes})
        assert path == tmp_path / "new" / "report.html"
        return Page(path.read_text(encoding="utf-8"))

    return read


def figure() -> Figure:
    made = Figure(figsize=(2, 1))
    made.subplots().plot([0, 1])
    return made


def spoiled(check: TheoremCheck, datum: int = 1) -> TheoremCheck:
    """The same check, contradicted by the joint row of one datum."""
    rows = [
        dataclasses.replace(row, agrees=False) if row.datum == datum and row.latent is None else row
        for row in check.rows
    ]
    return dataclasses.replace(check, rows=tuple(rows))


def test_it_fetches_and_runs_nothing(written, collapsed):
    page = written(collapsed)
    for tag in ("script", "link", "iframe", "object", "embed", "base"):
        assert not page.all(tag)
    images = page.all("img")
    assert len(images) == 1
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(anchor["href"].startswith("#") for anchor in page.all("a"))
    assert not re.search(r"url\(|@import|https?:", page.source)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_figures_are_inside_with_their_captions(written, collapsed):
    page = written(collapsed, figures={"one": (figure(), "First <b>."), "two": (figure(), "Second.")})
    for image in page.all("img"):
        data = base64.b64decode(image["src"].split(",")[1], validate=True)
        assert data.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(data[16:20], "big") >= 300  # 2 inches at 150 dots or more
    assert "Figure 1. First <b>. " in page.text
    assert "Figure 2. Second." in page.text


def test_names_cannot_become_markup(written, collapsed):
    evil = "<script>alert('z')</script>"
    rows = tuple(dataclasses.replace(row, model=evil) for row in collapsed.rows)
    check = dataclasses.replace(spoiled(collapsed), model=evil, setting='"><img src=x onerror=y>', rows=rows)
    verdict = dataclasses.replace(
        collapsed.verdict, latents={"<i>z</i>": Level.CONSTANT}, assumptions=(evil,)
    )
    page = written(
        spoiled(dataclasses.replace(check, verdict=verdict)),
        title=evil,
        figures={'" onload="y': (figure(), evil)},
        summary={evil: evil},
        command=evil,
        versions={evil: evil},
    )
    assert not page.all("script")
    assert not page.all("i")
    assert len(page.all("img")) == 1
    assert set(page.all("img")[0]) == {"src", "alt"}
    # title twice, counterexample, line, assumption, caption, summary and version twice each, command
    assert page.text.count(evil) == 11


def test_each_check_is_a_line_with_its_explanation(written, collapsed, informed):
    page = written(collapsed, informed)
    text = page.text
    for check in (collapsed, informed):
        assert check.setting in text
        assert " ".join(str(check.verdict).split()) in text
        assert f"{check.collapse.mean_kl:.4g}" in text
    assert text.count("verified again for this report") == 2
    assert "z CONSTANT 2 0 0 … 0 agrees" in text
    low, high = informed.collapse.band.mean(0).tolist()
    assert f"z GLOBAL 25 {informed.collapse.mean_kl:.4g} {low:.4g} … {high:.4g} agrees" in text
    assert len(page.all("details")) == 2


def test_it_shows_some_data_and_says_so(written, informed):
    page = written(informed)
    assert "10 of 25 data are shown" in page.text
    shown = [row for row in informed.rows if row.datum is None or row.datum <= 10]
    details = page.source.split("<details>")[1].split("</details>")[0]
    assert details.count("<tr>") == 1 + len(shown)
    first = informed.rows[0]
    assert f"{first.kl:.4g}" in details
    assert f"{first.flatness:.4g}" in details


def test_a_contradiction_comes_first_and_is_always_listed(written, collapsed, informed):
    page = written(collapsed, spoiled(informed, datum=23))
    text = page.text
    assert "The theorem fails" in text
    assert "27 data in 2 checks: 26 agree , 1 contradict" in re.sub(r"(\d|agree),", r"\1 ,", text)
    start, theorem = text.index("Counterexamples"), text.index("What the theorem says")
    assert start < theorem
    assert "model w = 1 23 all INFORMED" in text[start:theorem]
    assert "CONTRADICTS" in text[start:theorem]
    # Beyond the first ten data, but in the details all the same.
    details = page.source.split("<details>")[2]
    assert "<td>23</td><td>all</td>" in details
    assert "11 of 25 data are shown" in text


def test_no_contradiction_no_section(written, collapsed, informed):
    text = written(collapsed, informed).text
    assert "The theorem holds wherever it was decided." in text
    assert "Counterexamples" not in text
    assert "CONTRADICTS" not in text


def test_many_contradictions_are_cut_short(written, informed):
    rows = tuple(dataclasses.replace(row, agrees=False) for row in informed.rows)
    page = written(dataclasses.replace(informed, rows=rows))
    section = page.source.split('<section id="counterexamples">')[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + 50
    assert "… and 2 more." in section


def test_undecided_is_no_agreement(written, collapsed):
    def with_all(level: str) -> TheoremCheck:
        rows = tuple(dataclasses.replace(row, agrees=None, level=level) for row in collapsed.rows)
        return dataclasses.replace(collapsed, rows=rows)

    for level, words in (("UNKNOWN", "undecided"), ("INFORMED", "below precision")):
        text = written(with_all(level)).text
        assert "Nothing here decides about the theorem." in text
        assert f"2 0 0 … 0 {words}" in text


def test_a_certificate_that_fails_is_called_so(written, collapsed):
    class Broken(Certificate):
        kind = "Broken"  # pyright: ignore[reportAssignmentType]
        statement = "1 = 2."  # pyright: ignore[reportAssignmentType]

        def verify(self) -> bool:
            return False

    for certificate, words in (
        (Broken(), "Broken, FAILED its verification"),
        (None, "None: nothing was proved"),
    ):
        verdict = dataclasses.replace(collapsed.verdict, certificate=certificate)
        assert words in written(dataclasses.replace(collapsed, verdict=verdict)).text


def test_how_to_reproduce(written, collapsed):
    text = written(collapsed).text
    assert "This page was written by identkit verify --suite classical ." in text
    assert "torch 2.13.0" in text
    assert "The data are drawn here." in text
    assert "seed 7" in written(collapsed, summary={"seed": 7}).text


def test_pooled_data_are_explained(written, collapsed):
    pooled = verify(LINEAR, [[0.3], [2.0]], at={"w": 1}, pooled=True)
    assert "A pooled data set counts as one datum." in written(pooled).text
    assert "pooled" not in written(collapsed).text


def test_the_report_of_nothing_is_refused(tmp_path: Path):
    rest: dict[str, Any] = {"figures": {}, "summary": [], "command": "", "versions": {}}
    with pytest.raises(ValueError, match="checks should hold at least one result"):
        report.write(tmp_path / "report.html", title="", checks=[], **rest)
    assert not list(tmp_path.iterdir())
