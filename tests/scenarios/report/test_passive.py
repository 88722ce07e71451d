"""Pages that could act, each refused for what it has; and the project's own, of which none could."""

from __future__ import annotations

import pytest

from scenarios.report.page.passive import BEGINNING, POLICY, check_passive
from scenarios.report.page.render import render
from tests import reports
from tests.scenarios.report.test_page import picture


def test_every_page_of_the_project_passes_whatever_its_texts_are() -> None:
    for audit in (None, reports.audit("not-refuted"), reports.audit("refuted")):
        page = render(reports.report(audit), {"One digit, three ways.": picture()})
        assert page.startswith(BEGINNING)
        check_passive(page)
    run = reports.report().run.model_copy(update={"summary": "</style><script>alert(1)</script> onload=x 'a\""})
    check_passive(render(reports.report().model_copy(update={"run": run})))


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("<script>x</script>", "element 'script'"),
        ("<SCRIPT>x</SCRIPT>", "element 'SCRIPT'"),
        ("<svg><script>x</script></svg>", "element 'script'"),
        ("<svg:script>x", "element 'svg:script'"),
        ("<iframe></iframe>", "element 'iframe'"),
        ("<form></form>", "element 'form'"),
        ("<base>", "element 'base'"),
        ('<link rel="stylesheet">', "element 'link'"),
        ("<object></object>", "element 'object'"),
        ("<svg><foreignObject></foreignObject></svg>", "element 'foreignObject'"),
        ("<svg><set></set></svg>", "element 'set'"),
        ("<template></template>", "element 'template'"),
        ("<noscript></noscript>", "element 'noscript'"),
        ('<p onclick="x">', "onclick"),
        ('<p class="a" OnLoad="x">', "onload"),
        ("<body onload>", "onload"),
        ('<meta http-equiv="refresh" content="0">', "http-equiv"),
        ('<a href="https://example.org">', "href"),
        ('<a href="javascript:x">', "href"),
        ('<a href="data:image/svg+xml;base64,AA">', "href"),
        ('<a href="#claim" ping="https://example.org">', "ping"),
        ('<svg><use xlink:href="https://example.org"/></svg>', "xlink:href"),
        ('<svg><use href="data:image/svg+xml;base64,AA"/></svg>', "href"),
        ('<img src="https://example.org">', "src"),
        ('<img src="data:text/html,x">', "src"),
        ("<p onclick=x>", "no plain tag"),
        ("<p title='<script>'>", "no plain tag"),
        ('<p title="<script>">', "no plain tag"),
        ('<p title="a>b">', "no plain tag"),
        ("<p/onclick=x>", "no plain tag"),
        ("<!-- --!><script>", "no plain tag"),
        ("<![CDATA[ ]]>", "no plain tag"),
        ("<?xml version='1.0'?>", "no plain tag"),
        ("<p", "no plain tag"),
        ("<style></style/><script>x</script>", "element 'script'"),
        ("<style><p></style foo><script>", "element 'script'"),
        # What Python calls space, and a browser takes for a part of the element's name: the quote opens no value there.
        *((f'<p{space}title="x onclick=y z">', "no plain tag") for space in "\v\x1c\x1f\x85\xa0\u2003\u2028\u3000"),
    ],
)
def test_what_could_act_is_refused_wherever_it_stands(markup: str, words: str) -> None:
    for page in (
        f"{BEGINNING}{markup}",
        f"{BEGINNING}<style>p > i {{}}</style><title>t</title>\n<p>text\n{markup}</p>",
    ):
        with pytest.raises(ValueError, match=words):
            check_passive(page)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<p>epsilon 0.01</p>",
        " " + BEGINNING,
        "\ufeff" + BEGINNING,
        "<style></style>" + BEGINNING,
        BEGINNING.replace("default-src 'none'", "default-src *"),
        BEGINNING.replace(POLICY, POLICY + "; script-src 'unsafe-inline'"),
        BEGINNING.replace("Content-Security-Policy", "Content-Security-Policy-Report-Only"),
        BEGINNING.replace("<meta http-equiv", "<noscript><meta http-equiv"),
    ],
)
def test_a_page_without_the_policy_at_its_very_beginning_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="does not begin with the policy"):
        check_passive(page)


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\f", "\r", " \n  "])
def test_what_a_browser_calls_space_parts_attributes(space: str) -> None:
    check_passive(f'{BEGINNING}<p{space}title="x onclick=y"{space}></p{space}>')
