"""What a data card costs: the median of five of making and writing one, beside reading the table it describes.

    python benchmarks/data/cards.py     # writes benchmarks/data/cards.json, under a minute

The tables are synthetic telemetry of 10^4, 10^5 and 10^6 sample instants. `card` includes the hash of the file, its
statistics and the check of the key; `read` is `load_table`, in the same run and process, taking turns. `check` is the
validation by mlcroissant, which does not depend on the rows.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from esa_notebooks.data.cards import card, check_card, write_card
from esa_notebooks.data.datasets import read_telemetry
from esa_notebooks.data.register import SOURCES
from esa_notebooks.data.tables import load_table, save_table
from esa_notebooks.data.telemetry import Config

REPEATS, PERIOD_S = 5, 30


def once(what) -> float:
    """Seconds that `what` takes."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def measure(instants: int, folder: Path) -> dict:
    """Medians for a table of so many sample instants."""
    df, meta = read_telemetry(Config(days=(instants + 0.5) * PERIOD_S / 86_400))
    table, rows = save_table(df, folder / "telemetry.parquet", meta), len(df)
    del df
    page = folder / "telemetry.croissant.json"
    more = {"register_source": SOURCES["telemetry"], "version": "1.0.0"}
    ways = {"card_s": lambda: write_card(card(meta, table, **more), page),
            "read_s": lambda: load_table(table), "check_s": lambda: check_card(page)}
    for what in ways.values():   # imports and caches
        what()
    runs = [{name: once(what) for name, what in ways.items()} for _ in range(REPEATS)]
    found = {name: round(statistics.median(r[name] for r in runs), 4) for name in ways}
    return {"instants": instants, "rows": rows, "table_bytes": table.stat().st_size, "card_bytes": page.stat().st_size,
            **found, "card_to_read": round(found["card_s"] / found["read_s"], 2)}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        tables = [measure(n, Path(folder)) for n in (10_000, 100_000, 1_000_000)]
    found = {"command": "python benchmarks/data/cards.py", "seed": Config.seed, "repeats": REPEATS, "tables": tables,
             "versions": {"python": platform.python_version(),
                          **{p: version(p) for p in ("mlcroissant", "pandas", "pyarrow")}}}
    result = Path(__file__).with_suffix(".json")
    beside = result.with_name(f".{result.name}.partial")
    beside.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
