"""JupyterLab in a headless browser: notebooks open, walkthroughs run, the explorer answers to clicks.

Pictures of it all are in runs/jupyterlab.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat import v4
from PIL import Image
from skimage import data

from expvqa_lib.pipeline.reproduce import repository_root
from expvqa_lib.synthfacs import AUS

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome; Debian: apt-get install chromium")
ROOT = repository_root()
KEPT = ROOT / "runs" / "jupyterlab"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
PATIENCE = 40_000  # ms, on a busy machine
RUN = 600_000  # ms: a walkthrough takes half a minute where nothing else runs
SETTINGS = {  # else it asks about news on every page, and cells out of sight are not on the page
    "apputils-extension/notification": '{"fetchNews": "false"}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
VIEW = {"width": 1100, "height": 1000}
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
PROMPTS = '[...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].filter(p => p.offsetParent)'
ENDED = f"""() => document.querySelector("{ERROR}") || {PROMPTS}
    .every(prompt => /^\\[\\d+\\]:$/.test(prompt.innerText.trim()))"""  # all are numbered, or one failed
MARKUP = "<img src=x onerror=alert(1)>"
TOKEN = "for-this-test-only"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab on the loopback, in a copy of the notebooks and one that shows the explorer."""
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(ROOT / "notebooks", home / "work", ignore=shutil.ignore_patterns(".*"))
    cells = [v4.new_code_cell("import expvqa_lib as expvqa\n\nexpvqa.explore()")]
    nbformat.write(v4.new_notebook(cells=cells, metadata=KERNEL), home / "work" / "explorer.ipynb")
    walkthrough = home / "work" / "walkthrough.ipynb"
    text = walkthrough.read_text(encoding="utf-8")
    assert text.count("steps = 300") == 1
    walkthrough.write_text(text.replace("steps = 300", "steps = 4"), encoding="utf-8")
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab"
    for name, text in SETTINGS.items():
        (settings / name).parent.mkdir(parents=True)
        (settings / f"{name}.jupyterlab-settings").write_text(text)
    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    places |= {"IPYTHONDIR": str(home / "ipython"), "TMPDIR": str(home), "PYTHONPATH": str(ROOT)}
    environment = os.environ | places | {"HF_HUB_OFFLINE": "1"}
    flags = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        f"--IdentityProvider.token={TOKEN}",
    ]
    command = [sys.executable, "-m", "jupyterlab", *flags, f"--ServerApp.root_dir={home / 'work'}"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home / "work", stdout=log, stderr=log)
    try:
        yield _address(home, server)
    finally:
        server.terminate()  # it ends its kernels
        server.wait(60)


def _address(home, server) -> str:
    for _ in range(300):
        for path in (home / "runtime").glob("jpserver-*.json"):
            if text := path.read_text():
                return json.loads(text)["url"].rstrip("/")
        assert server.poll() is None, (home / "log").read_text()
        time.sleep(0.2)
    raise AssertionError("JupyterLab did not start: " + (home / "log").read_text())


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield browser.new_context(viewport=VIEW)  # one, so that JupyterLab's files are kept between pages
        browser.close()


@pytest.fixture
def page(browser):
    with browser.new_page() as page:
        page.set_default_timeout(PATIENCE)
        yield page


def opened(page, lab: str, name: str, run: bool = True) -> None:
    """Open a notebook alone on the page, and run all cells once there is a kernel."""
    page.goto(f"{lab}/doc/tree/{name}?token={TOKEN}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    if not run:
        return
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".jp-CodeCell .jp-InputPrompt:visible").first.filter(has_not_text="[ ]").wait_for()


def button(page, text: str):
    return page.locator("button.jupyter-button, .widget-toggle-buttons button", has_text=text)


def upload(page, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        button(page, "Upload").click()
    chooser.value.set_files({"name": name, "mimeType": "image/jpeg", "buffer": content})


def test_the_explorer_redraws_asks_and_explains(page, lab):
    opened(page, lab, "explorer.ipynb")
    page.locator(".expvqa-answer", has_text="no").wait_for()
    face, figure = (page.locator("img.widget-image").nth(k) for k in (0, 1))
    before = face.get_attribute("src")
    slider = page.locator(".widget-slider .noUi-handle").nth(AUS.index(12))
    slider.focus()
    for _ in range(18):
        slider.press("ArrowRight")
    page.locator(".expvqa-answer", has_text=re.compile("^yes")).wait_for()
    assert face.get_attribute("src") != before
    page.screenshot(path=KEPT / "explorer_drawn.png")
    before = figure.get_attribute("src")
    page.locator("select", has_text="guided gradients").select_option("map: cross attention")
    page.wait_for_function("([image, before]) => image.src !== before", arg=[figure.element_handle(), before])

    page.locator(".widget-text input:visible").last.fill("<b>Which</b> facial actions does this person show?")
    button(page, "Ask").click()
    page.locator("select", has_text="person").wait_for()  # the words of the answer, to be explained
    with page.expect_download() as download:
        page.locator("a[download]", has_text="Save as PNG").click()
    download.value.save_as(KEPT / "explorer_saved.png")
    page.screenshot(path=KEPT / "explorer_own_words.png")

    button(page, "Photo").click()
    upload(page, f"{MARKUP}.jpg", b"text")
    page.locator(".expvqa-error", has_text=f"{MARKUP}.jpg: not a picture").wait_for()
    astronaut = io.BytesIO()
    Image.fromarray(data.astronaut()).save(astronaut, "JPEG")
    upload(page, "astronaut.jpg", astronaut.getvalue())
    page.locator(".expvqa-answer").wait_for()
    assert page.locator(".expvqa-error").count() == 0
    page.screenshot(path=KEPT / "explorer_photo.png")
    with Image.open(KEPT / "explorer_saved.png") as saved:
        assert min(saved.size) > 500
    assert page.locator("[data-mime-type*=stderr], [data-mime-type*=error], .jp-Dialog").count() == 0


@pytest.mark.parametrize("name", ["walkthrough", "own_photos"])
def test_a_walkthrough_runs_to_its_end(page, lab, name):
    opened(page, lab, f"{name}.ipynb")
    page.wait_for_function(ENDED, timeout=RUN)
    assert page.locator(ERROR).all_inner_texts() == []
    said = page.locator("[data-mime-type*=stderr]").all_inner_texts()
    assert not [text for text in said if "Warning" in text]
    pictures, tables = {"walkthrough": (4, 2), "own_photos": (3, 2)}[name]
    assert page.locator(".jp-OutputArea img:visible").count() >= pictures
    assert page.locator(".jp-OutputArea table:visible").count() >= tables
    if name == "walkthrough":
        page.locator(".widget-slider .noUi-handle").first.wait_for()
        page.locator(".expvqa-answer").wait_for()
    else:
        assert "15 faces in 3 of 5 files" in page.locator(".jp-Notebook").inner_text()
    height = page.locator(".jp-WindowedPanel-inner").evaluate("part => part.scrollHeight")
    page.set_viewport_size({"width": 1100, "height": 200 + height})
    page.locator(".jp-WindowedPanel-outer").evaluate("part => part.scrollTo(0, 0)")
    page.screenshot(path=KEPT / f"{name}_run.png")
    page.set_viewport_size(VIEW)
    assert page.locator(".jp-Dialog").count() == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens(page, lab, path):
    title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    opened(page, lab, path.name, run=False)
    page.get_by_role("heading", level=1, name=title).wait_for()
    assert page.locator(".jp-Dialog").count() == 0
    page.screenshot(path=KEPT / f"{path.stem}.png")
