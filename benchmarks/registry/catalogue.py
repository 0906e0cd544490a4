"""The catalogue of 1,000 models: how long it takes to make, and to search in a browser.

    python benchmarks/registry/catalogue.py             # writes benchmarks/registry/catalogue.json
    python benchmarks/registry/catalogue.py --quick     # 100 models, on the screen only

The agency is made up (tests/registry/catalogue_world.py): a declaration for each model, a journal, and for each
version a bundle with its decision and two run records. It is written first, which is not timed. Then, in a process of
its own, all is read, laid over each other and drawn: a page for each model and data set, the front page, the JSON.

In the browser a text is put into the field and an input event sent; the clock stops when the frame after it has been
drawn (two animation frames), so about one frame, 17 ms, is waiting. The same for a choice, and for a click to sort.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
MODELS, REPEATS = 1000, 5
WORDS = (
    "a",
    "anomal",
    "anomalous segments variant 42",
    "procurement",
    "flight dynamics",
    "no such model",
    "0.9",
    "llm",
    "2027",
    "",
)
TIMED = """async ([kind, value]) => {
  const field = document.querySelector(kind === 'words' ? '#words' : kind), began = performance.now()
  if (kind === 'words') { field.value = value; field.dispatchEvent(new Event('input', {bubbles: true})) }
  else if (kind === '#state') { field.value = value; field.dispatchEvent(new Event('change', {bubbles: true})) }
  else field.click()
  await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))
  return performance.now() - began
}"""


def build(folder: Path) -> dict[str, float]:
    """Read, lay over each other, draw; seconds of each."""
    from esa_notebooks.registry.catalogue import catalogue_of
    from esa_notebooks.registry.catalogue_pages import build_catalogue
    from tests.registry.catalogue_world import AT, World

    agency, taken = World(folder), {}
    began = time.perf_counter()
    material = agency.gathered()
    taken["read_s"] = time.perf_counter() - began
    catalogue = catalogue_of(material, AT)
    taken["lay_over_s"] = time.perf_counter() - began - taken["read_s"]
    build_catalogue(catalogue, agency.reports, material.hrefs)
    taken["all_s"] = time.perf_counter() - began
    taken["draw_s"] = taken["all_s"] - taken["read_s"] - taken["lay_over_s"]
    return taken | {"cpu_s": time.process_time()}


def browse(page: Path) -> dict[str, dict[str, float]]:
    """Milliseconds from an event to the frame that shows its effect: median, 95th percentile and worst of each kind."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as p:
        chromium = shutil.which("chromium") or "/usr/bin/chromium"
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, size in (("desktop", (1280, 900)), ("phone", (360, 740))):
            at = browser.new_page(viewport={"width": size[0], "height": size[1]})
            at.goto(page.as_uri())
            asked = {
                "search": [("words", w) for w in WORDS] * REPEATS,
                "choose": [("#state", s) for s in ("production", "declared", "")] * REPEATS,
                "sort": [(f"#models th:nth-child({n}) button", "") for n in (1, 3, 7, 7)] * (name == "desktop"),
            }
            for kind, all_ in asked.items():
                taken = [at.evaluate(TIMED, list(one)) for one in all_]
                if taken:
                    found[f"{kind}_{name}_ms"] = {
                        "median": round(median(taken), 1),
                        "p95": round(quantiles(taken, n=20, method="inclusive")[-1], 1),
                        "worst": round(max(taken), 1),
                        "n": len(taken),
                    }
        browser.close()
    return found


def main() -> None:
    """Measure and write."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.build:
        print(json.dumps(build(given.build)))
        return
    from tests.registry.catalogue_world import world

    models = 100 if given.quick else MODELS
    with tempfile.TemporaryDirectory() as folder:
        agency = world(Path(folder), models)
        runs = [
            json.loads(
                subprocess.run(
                    [sys.executable, HERE, "--build", folder], check=True, capture_output=True, text=True
                ).stdout
            )
            for _ in range(3)
        ]
        site = agency.reports / "catalogue"
        sizes = {
            "pages": len(list(site.rglob("*.html"))),
            "front_page_kb": round((site / "index.html").stat().st_size / 1000),
            "json_kb": round((site / "catalogue.json").stat().st_size / 1000),
        }
        told = {
            "command": "python benchmarks/registry/catalogue.py",
            "models": models,
            "targets": {"all_s": 10, "search_ms": 100},
            "build": {k: round(median(r[k] for r in runs), 2) for k in runs[0]},
            "build_worst_s": round(max(r["all_s"] for r in runs), 2),
            "site": sizes,
            "browser": browse(site / "index.html"),
            "load_average": [round(n, 1) for n in os.getloadavg()],
            "python": platform.python_version(),
            "jinja2": version("jinja2"),
            "pyyaml": version("pyyaml"),
        }
    text = json.dumps(told, indent=1) + "\n"
    print(text)
    if not given.quick:
        HERE.with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
