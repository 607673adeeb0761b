"""Figures as files that stand alone, and the descriptions of the mechanism's figures."""

import re
import xml.etree.ElementTree as ElementTree

from fabricated import Page, all_figures, render

from tarot.report.figures.svg import DARK, LIGHT, standalone


def test_a_figure_stands_alone_in_light_and_dark():
    for figure in all_figures().values():
        text = standalone(figure)
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{*}title").text and root.find("{*}desc").text
        assert "var(" not in text and "currentColor" not in text
        assert "prefers-color-scheme: dark" in text and DARK["gain"] in text
        assert not re.search("#00000[1-5]", text)
        assert "mathdefault" not in text  # TeX, which nothing parses


def test_figures_describe_what_they_show():
    described = {name: Page(str(figure)).texts_of("desc")[0] for name, figure in all_figures().items()}
    assert described["lens"] == (
        "mean over 9 documents; after the last layer +0.300, from +0.250 to +0.350; the largest change is after layer 3"
    )
    assert "“yes\\n\\x00” from \N{MINUS SIGN}9.00 to \N{MINUS SIGN}0.50" in described["flips"]
    assert described["effects"] == "a on t_1 +0.333; b on t_1 +0.333"
    assert described["tradeoff"] == "a at 0: gain +0.333, KL 0.000; a at 1: gain +0.333, KL 0.100"
    assert described["attention"].count("layer") == 5
    assert described["layers"].startswith("layer 4: alone +0.100, missed +0.200; layer 6: alone")


def test_a_figure_alone_has_the_pages_colours():
    page = render([])
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    for block, colours in ((light, LIGHT), (dark, DARK)):
        assert {name: re.search(rf"--{name}: (#\w+);", block)[1] for name in colours} == colours
