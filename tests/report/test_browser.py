"""Pages of runs as a reader has them: in Chromium, by pointer and by keyboard, on a desk and on a phone."""

import pytest
from browser import CHROMIUM, PATIENCE, PHONE, chromium, opened
from page_toys import FILM, make_run, measure

from heatgen.report.gallery import write_gallery

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; on Debian: apt-get install chromium"),
]
HOSTILE = '</script><script>document.title = "taken"</script>"><img src=x onerror=\'document.title = "taken"\'>'


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five runs, one of them hostile and one damaged, with their pages."""
    root = tmp_path_factory.mktemp("runs")
    for i, (model, data, fid) in enumerate((("ihd", "digits", 30.5), ("edm", "digits", 9.25), ("edm", "grf", 100.75))):
        make_run(root / "sweep", f"{i}-{model}-{data}", seed=i, fid=fid, model=model, data=data)
    hostile = make_run(root, "hostile", model=HOSTILE.replace("/", "∕"))
    measure(hostile, "kid", {"kid": 1.0}, labels={"kid": HOSTILE}, notes=[HOSTILE])
    (hostile / "metrics.csv").write_text('step,"<img src=x onerror=alert(1)>"\n0,1\n1,2\n')
    (make_run(root, "torn") / "metrics.csv").write_bytes(b"\xff")
    assert write_gallery(root)[1] == 5
    return root


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser, runs):
    """Open a page of the runs; at the end none has complained, and none has asked for more than itself."""
    pages = []

    def visited(name, *arguments, **options):
        pages.append(opened(browser, runs / name, *arguments, **options))
        return pages[-1]

    yield visited
    for page in pages:
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith(("data:", runs.as_uri()))] == []
        page.close()


def names(page):
    """The runs that the gallery shows, in their order."""
    return [row.inner_text() for row in page.locator(".runs tbody tr:visible th a").all()]


def brightest(page):
    """The column of the canvas that is bright, of 16."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("canvas"), copy = new OffscreenCanvas(canvas.width, canvas.height);
            const pen = copy.getContext("2d", { willReadFrequently: true });  // or Chromium complains of being read
            pen.drawImage(canvas, 0, 0);
            const places = [...Array(16).keys()].map(i => pen.getImageData((i + 0.5) * canvas.width / 16, 50, 1, 1).data[0]);
            return places.indexOf(Math.max(...places));
        }"""
    )


def until(page, condition):
    """Wait for what a page shows at its own time; the page allows no code that Playwright's own waiting needs."""
    for _ in range(PATIENCE // 100):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it never came")


def test_the_slider_moves_the_way_back_by_pointer_keyboard_and_button(visit):
    page = visit("sweep/0-ihd-digits/report.html")
    until(page, lambda: brightest(page) == FILM)
    slider, output = page.locator(".film input").first, page.locator(".film output").first
    assert output.inner_text() == f"level 0 of {FILM}"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert output.inner_text() == f"level 1 of {FILM}" and brightest(page) == FILM - 1
    page.keyboard.press("Home")
    assert output.inner_text() == f"level {FILM} of {FILM}" and brightest(page) == 0
    assert slider.get_attribute("aria-valuetext") == output.inner_text()
    page.get_by_role("button", name="Play").first.click()
    until(page, lambda: output.inner_text() == f"level 0 of {FILM}")
    assert brightest(page) == FILM and page.get_by_role("button", name="Play").first.inner_text() == "Play"


def test_curves_are_drawn_and_read_by_keyboard(visit):
    page = visit("sweep/0-ihd-digits/report.html")
    chart = page.locator(".chart svg").first
    assert chart.get_attribute("aria-label") == "loss: training ends at 0.125, validation ends at 0.5"
    assert page.locator(".chart path.curve").count() == 2
    chart.focus()
    for _ in range(50):
        page.keyboard.press("ArrowLeft")
    assert page.locator(".legend output").all_inner_texts() == ["1 at 1", "0.5 at 4"]
    assert "few images" in page.inner_text("#measured").lower()


def test_the_gallery_sorts_by_a_columns_name(visit):
    page = visit("index.html")
    assert names(page) == ["0-ihd-digits", "1-edm-digits", "2-edm-grf", "hostile"]
    head = page.locator("th[data-key=fid]")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["1-edm-digits", "hostile", "0-ihd-digits", "2-edm-grf"]
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending" and names(page)[0] == "2-edm-grf"
    page.get_by_label("Sort by", exact=True).select_option(label="started, oldest first")
    assert head.get_attribute("aria-sort") == "none" and names(page)[-1] == "2-edm-grf"
    page.locator("th[data-key=kid]").get_by_role("button").click()
    assert names(page)[0] == "hostile"  # runs without the value come last
    page.locator("th[data-key=kid]").get_by_role("button").click()
    assert names(page)[0] == "hostile"


def test_the_gallery_filters_by_group_metric_and_words(visit):
    page = visit("index.html")
    page.get_by_label("Model", exact=True).select_option("edm")
    assert names(page) == ["1-edm-digits", "2-edm-grf"] and page.inner_text("#count") == "2 of 4 runs."
    page.get_by_label("Data", exact=True).select_option("grf")
    assert names(page) == ["2-edm-grf"]
    page.get_by_label("Model", exact=True).select_option("")
    page.get_by_label("Data", exact=True).select_option("")
    page.get_by_label("Measured", exact=True).select_option("kid")
    assert names(page) == ["hostile"]
    page.get_by_label("Measured", exact=True).select_option("")
    page.get_by_label("Search", exact=True).fill("DIGITS seed=1")
    assert names(page) == ["1-edm-digits"]
    assert "metrics.csv cannot be read" in page.inner_text(".damaged")


def test_two_to_four_runs_stand_side_by_side(visit):
    page = visit("index.html")
    show = page.get_by_role("button", name="Side by side")
    page.get_by_label("Side by side: 0-ihd-digits").focus()
    page.keyboard.press("Space")
    assert show.is_disabled()
    page.get_by_label("Side by side: 1-edm-digits").check()
    show.click()
    assert page.evaluate("document.activeElement.id") == "compare-title"
    side = page.locator("#compare")
    assert side.locator("img").count() == 2 and "training, seed 0" in side.inner_text()
    assert side.locator(".chart").count() == 2 and side.locator(".chart path.curve").count() == 4
    values = side.get_by_role("row", name="FID").inner_text().split()
    assert values == ["FID", "30.50", "±", "0.25", "9.25", "±", "0.25"]
    assert side.locator(".best").all_inner_texts() == ["9.25 ± 0.25"]
    assert side.get_by_role("row", name="model.delta").inner_text().split() == ["model.delta", "0.01", "0.02"]
    assert "num_levels" not in side.inner_text()  # in which they agree
    page.get_by_label("Side by side: 2-edm-grf").check()
    assert side.locator(".sides img").count() == 3 and side.locator(".best").count() == 0
    assert "not comparable" in side.locator(".note").last.inner_text()
    page.get_by_label("Side by side: hostile").check()
    page.reload()  # the address keeps what was chosen
    assert page.locator("#compare .sides h3").count() == 4
    page.get_by_role("button", name="Clear").click()
    assert not side.is_visible() and not show.is_visible()


def test_what_a_stranger_wrote_runs_nowhere(visit):
    for name in ("hostile/report.html", "index.html"):
        page = visit(name)
        page.wait_for_timeout(300)
        assert "taken" not in page.title() and page.locator("img[src=x]").count() == 0
    page.get_by_label("Side by side: hostile").check()
    page.get_by_label("Side by side: 0-ihd-digits").check()
    page.get_by_role("button", name="Side by side").click()
    assert "taken" not in page.title() and page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.inner_text("#compare")


@pytest.mark.parametrize("name", ["index.html", "sweep/0-ihd-digits/report.html"])
def test_a_phone_shows_a_page_within_its_width_in_light_and_dark(visit, name):
    colours = set()
    for dark in (False, True):
        page = visit(name, PHONE, dark)
        if name == "index.html":
            page.get_by_label("Side by side: 0-ihd-digits").check()
            page.get_by_label("Side by side: 2-edm-grf").check()
            page.get_by_role("button", name="Side by side").click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        paper, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        light = [sum(map(float, colour[4:-1].split(","))) / 765 for colour in (paper, ink)]
        assert (light[0] < 0.15 and light[1] > 0.8) if dark else (light[0] > 0.9 and light[1] < 0.2)
        colours.add(paper)
    assert len(colours) == 2


@pytest.mark.parametrize("name", ["index.html", "sweep/0-ihd-digits/report.html"])
def test_every_control_is_reached_by_tab_and_has_a_name(visit, name):
    page = visit(name)
    controls = page.locator("a:visible, button:enabled:visible, input:visible, select:visible, summary:visible").count()
    reached = set()
    for _ in range(controls + 30):  # regions that scroll, and charts, are reached too
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) >= controls
    nameless = """() => [...document.querySelectorAll("button, input, select, canvas, svg, [role=region]")].filter(control =>
        !control.getAttribute("aria-label") && !control.textContent.trim() && !control.labels?.length).length"""
    assert page.evaluate(nameless) == 0
