"""A page in headless Chromium, by its command line: what it loads and how it looks.

The page is measured in frames, from outside; nothing is added to it.
"""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The window of a headless browser is never narrower than 500 pixels; a frame may be.
FRAMES = (390, 1280)
SCRIPT = """
const page = %s, widths = %s, results = {};
const luminance = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255);
  const [r, g, b] = parts.map(
    (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const isClear = (colour) => /^rgba\\(.*, 0\\)$/.test(colour);
const measure = (frame) => {
  const view = frame.contentWindow, root = frame.contentDocument;
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = view.getComputedStyle(node).backgroundColor;
      if (!isClear(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const words = [...root.querySelectorAll("body, body *")].filter((node) =>
    node.getClientRects().length && (node === root.body ||
      [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  const contrast = words.map((node) => {
    const ink = view.getComputedStyle(node).color;
    const pair = [luminance(ink), luminance(ground(node))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    return [ratio, node.tagName + "." + node.className];
  });
  contrast.sort((a, b) => a[0] - b[0]);
  const all = [...root.querySelectorAll("*")];
  return {
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    ground: luminance(ground(root.body)),
    contrast: contrast[0],
    overflow: root.documentElement.scrollWidth
      - root.documentElement.clientWidth,
    requests: view.performance.getEntriesByType("resource").map((e) => e.name)
      .filter((name) => !name.startsWith("data:")),
    addresses: all.flatMap((node) => ["src", "srcset", "data", "poster"].concat(
        node.tagName === "A" ? [] : ["href"])
      .map((name) => node.getAttribute(name))
      .filter((value) => value && !/^(data:|#)/.test(value))),
    images: [...root.images].map((image) => [
      image.naturalWidth, image.naturalHeight, image.alt,
      image.currentSrc === image.src]),
    formulas: [...root.querySelectorAll("math")].map((m) => {
      const box = m.getBoundingClientRect();
      return [box.width, box.height];
    }),
  };
};
const open = (width) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
  frame.onload = () => {
    const details = frame.contentDocument.querySelectorAll("details");
    for (const node of details) node.open = true;
    results[width] = measure(frame);
    frame.remove();
    done();
  };
  frame.srcdoc = page;
  document.body.append(frame);
});
(async () => {
  for (const width of widths) await open(width);
  const place = document.createElement("pre");
  place.id = "results";
  place.textContent = JSON.stringify(results);
  document.body.append(place);
})();
"""


def find() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def look(html: str, *, dark: bool = False) -> dict:
    """What the page is at each width of `FRAMES`, and what the console says.

    Every `details` is opened. No name resolves, so that a request fails at once.

    Returns:
        `{width: measures}` and `"console"`, the lines of errors.
    """
    script = SCRIPT % (json.dumps(html).replace("</", r"<\/"), json.dumps(FRAMES))
    with tempfile.TemporaryDirectory() as folder:
        harness = Path(folder) / "harness.html"
        harness.write_text(f"<!DOCTYPE html><body><script>{script}</script>")
        command = [
            *(find(), "--headless", "--no-sandbox", "--hide-scrollbars"),
            *("--disable-gpu", "--disable-extensions", "--disable-dev-shm-usage"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder}/profile",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            *("--window-size=1300,1000", "--enable-logging=stderr"),
            *("--virtual-time-budget=20000", "--dump-dom", harness.as_uri()),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        )
    found = re.search(r'<pre id="results">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    results = {int(w): m for w, m in json.loads(unescape(found[1])).items()}
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return results | {"console": lines}
