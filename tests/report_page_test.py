"""`lutc compile --report`: the page in a real browser, in light and dark, on a desk and on a phone; no network."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lutc.cli import main
from tests.small_models import save_mlp, save_samples

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

MEASURE = """
const frames = [...document.querySelectorAll('iframe')];
const seen = {};
for (const frame of frames) {
  const page = frame.contentDocument, all = s => [...page.querySelectorAll(s)];
  const shown = s => all(s).filter(e => e.getClientRects().length).length;
  const names = () => all('.row.l').sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
    .map(e => e.querySelector('.mono').textContent);
  const root = page.documentElement;
  const result = {width: frame.clientWidth, scroll: root.scrollWidth, scripts: all('script').length,
    title: page.title, h2: all('h2').map(e => e.textContent), tiles: all('.tile dt').map(e => e.textContent),
    wide: shown('svg.wide'), narrow: shown('svg.narrow'), points: shown('svg circle'), head: shown('.head'),
    bars: all('.track i').map(e => e.getBoundingClientRect().width), graph: names(),
    pre: all('pre').map(e => e.textContent), family: frame.contentWindow.getComputedStyle(page.body).fontFamily,
    smallest: Math.min(...all('main *').filter(e => e.getClientRects().length && e.textContent.trim())
      .map(e => parseFloat(frame.contentWindow.getComputedStyle(e).fontSize)))};
  const sort = page.getElementById('sort-error');
  if (sort) { sort.checked = true; result.by_error = names(); }
  seen[frame.id] = result;
}
document.body.innerHTML = '';
const out = document.createElement('pre');
out.id = 'result';
out.textContent = JSON.stringify(seen);
document.body.append(out);
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of a compiled model, layers "up" and "down"."""
    folder = tmp_path_factory.mktemp("report")
    save_samples(folder)
    arguments = ["compile", str(save_mlp(folder)), "--calib", str(folder / "calib.npz"), "-q"]
    forms = ["--preset", "int8", "--form", "up=gain-v3", "--form", "down=gain-v4"]
    assert main([*arguments, *forms, "--report", str(folder / "report.html")]) == 0
    return folder / "report.html"


def run(browser: str, folder: Path, *arguments: str) -> str:
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def rendered(browser: str, folder: Path, page: str) -> dict:
    """What a browser makes of the page in a wide and in a narrow frame."""
    source = html.escape(page, quote=True)
    frames = "".join(
        f'<iframe id="{name}" width="{width}" height="900" srcdoc="{source}"></iframe>'
        for name, width in (("wide", 1100), ("narrow", 360))
    )
    outer = folder / "outer.html"
    outer.write_text(f"<!doctype html><body>{frames}<script>onload = () => {{{MEASURE}}}</script>", encoding="utf-8")
    dom = run(browser, folder, "--window-size=1600,1200", "--virtual-time-budget=5000", "--dump-dom", outer.as_uri())
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found.group(1)))


def test_a_compiled_model_in_a_browser(browser, page, tmp_path):
    seen = rendered(browser, tmp_path, page.read_text(encoding="utf-8"))
    for frame in seen.values():
        assert frame["scroll"] <= frame["width"]  # nothing sticks out, on a phone either
        assert frame["scripts"] == 0
        assert frame["title"] == "mlp.onnx compiled by lutc"
        assert "Layers" in frame["h2"] and "Make it again" in frame["h2"]
        assert [name for name in frame["tiles"] if "than int8" in name] and "artifact" in frame["tiles"]
        assert frame["graph"] == ["up", "down"]
        assert sorted(frame["by_error"]) == ["down", "up"]
        assert len(frame["bars"]) == 4 and all(width > 0 for width in frame["bars"])
        assert any("--keep '^down$=fp32'" in block for block in frame["pre"])
        assert any(block.startswith("lutc compile ") and "--report" in block for block in frame["pre"])
        assert frame["smallest"] >= 12
    assert seen["wide"]["head"] == 1 and seen["narrow"]["head"] == 0


def test_a_selection_in_a_browser(browser, tmp_path):
    from lutc.report_page import Facts, render
    from lutc.report_page.page_test import HOSTILE, layer, report, selection

    names = [
        "encoder/layer.0/a-name-that-is-so-long-that-it-cannot-stand-in-one-line-of-any-phone" * 2,
        HOSTILE,
        "last",
    ]
    given = report(*(layer(name, error=error) for name, error in zip(names, (0.01, 0.3, 0.1), strict=True)))
    given["selection"] = selection(names)
    facts = Facts(HOSTILE, HOSTILE, ["lutc compile " + HOSTILE], {"samples": HOSTILE})
    seen = rendered(browser, tmp_path, render(given, facts))
    for frame in seen.values():
        assert frame["scroll"] <= frame["width"]
        assert frame["scripts"] == 0
        assert frame["points"] == 4
        assert [frame["graph"].index(name) for name in frame["by_error"]] == [1, 2, 0]
    assert (seen["wide"]["wide"], seen["wide"]["narrow"]) == (1, 0)
    assert (seen["narrow"]["wide"], seen["narrow"]["narrow"]) == (0, 1)


def test_light_and_dark(browser, page, tmp_path):
    image = pytest.importorskip("PIL.Image")
    grounds = []
    for name, flags in (
        ("light", ("--blink-settings=preferredColorScheme=1",)),
        ("dark", ("--blink-settings=preferredColorScheme=0",)),
    ):
        shot = tmp_path / f"{name}.png"
        run(browser, tmp_path, "--window-size=800,900", *flags, f"--screenshot={shot}", page.as_uri())
        with image.open(shot) as picture:
            pixels = np.asarray(picture.convert("L"), float)
        grounds.append(np.median(pixels))
        assert pixels.std() > 10  # there is something to see
    assert grounds[0] > 220 and grounds[1] < 60


def test_the_page_is_written_when_the_budget_is_missed(tmp_path, capsys):
    save_samples(tmp_path)
    page, model = tmp_path / "r.html", save_mlp(tmp_path)
    arguments = ["compile", str(model), "--calib", str(tmp_path / "calib.npz"), "--preset", "int8", "-q"]
    budget = ["--form", ".*=plain-v8", "--score", "tests.small_models:logit_mean", "--max-drop", "-1000000"]
    assert main([*arguments, *budget, "--report", str(page)]) == 4
    assert "Budget missed." in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_refused_first(tmp_path, capsys):
    assert main(["compile", str(save_mlp(tmp_path)), "--report", str(tmp_path / "missing" / "r.html")]) == 2
    assert "--report" in capsys.readouterr().err
    assert not (tmp_path / "mlp.lut").exists()


def test_the_command_can_be_pasted(page):
    line = re.search(r"<pre>(lutc compile [^<]*)</pre>", page.read_text(encoding="utf-8"))
    assert line
    words = shlex.split(html.unescape(line.group(1)))
    artifact = page.with_name("mlp.lut")
    made = artifact.read_bytes()
    artifact.unlink()
    assert main([*words[1:], "-q"]) == 0
    assert artifact.read_bytes() == made
