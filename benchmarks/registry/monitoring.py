"""What the watch promises and what it keeps: false alarms and power on simulated, real and generated telemetry.

    ESA_DATA_MIRROR=… OMP_NUM_THREADS=1 .venv/bin/python benchmarks/registry/monitoring.py

Writes monitoring.json beside itself. Every figure follows from the seeds in this file; two to four minutes on one core. OPS-SAT and
the generated spacecraft are read as prepared by `make run` (data/processed).
"""
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import signal, stats

from esa_notebooks.data.tables import load_table
from esa_notebooks.registry.monitoring import drift, online, power, report
from esa_notebooks.stats import wilson

HERE = Path(__file__).parent


def remembering(phi: float, rows: int, channels: int, seed: int) -> pd.DataFrame:
    noise = np.random.default_rng(seed).standard_normal((rows, channels)) * math.sqrt(1 - phi**2)
    noise[0] /= math.sqrt(1 - phi**2)
    return pd.DataFrame(signal.lfilter([1], [1, -phi], noise, axis=0)).rename(columns=str)


def rated(alarms: int, windows: int) -> dict:
    return {"windows": windows, "alarms": alarms, "rate": alarms / windows, "wilson": [round(x, 4) for x in wilson(alarms, windows)]}


def clean_windows(phi: float, rows: int, window: int, channels: int, share: float, references: int = 20, each: int = 10) -> dict:
    """New clean windows against new references, five windows apart: this watch, and Kolmogorov–Smirnov with the same rule."""
    ours = naive = 0
    for r in range(references):
        x = remembering(phi, rows + each * 5 * window, channels, r)
        watch = drift.calibrate(x[:rows], list(x), window, share, seed=r)
        for i in range(each):
            part = x.iloc[rows + 5 * window * i + 4 * window:rows + 5 * window * (i + 1)]
            ours += bool(drift.look(watch, part).drifted)
            naive += bool(drift.simes(np.array([stats.ks_2samp(part[c], x[c][:rows]).pvalue for c in x])) <= share)
    return {"correlation": phi, "reference": rows, "window": window, "channels": channels, "promised": share,
            "watch": rated(ours, references * each), "kolmogorov_smirnov": rated(naive, references * each)}


def told(one: power.Power) -> dict:
    found = {f"{r.kind} {r.size_:g}": [r.share, round(r.low, 3), round(r.high, 3)]
             for r in one.table.rename(columns={"size": "size_"}).itertuples()}
    return {"promised": one.promised, "false": rated(one.alarms, one.clean), "found": found}


def tables() -> dict:
    """OPS-SAT with rows dealt at random (as in monitor.ipynb) and in the table's order; the spacecraft, a day a window."""
    df, meta = load_table("data/processed/opssat.parquet")
    dealt = report.halves(df, meta)
    ordered = df[df.split == "train"].reset_index(drop=True)
    found = {}
    for name, reference in (("opssat, rows dealt", dealt.reference), ("opssat, rows in order", ordered)):
        found[name] = told(power.campaign(reference, dealt.channels, 100, 0.05, per_month=30, group="channel"))
    df, meta = load_table("data/processed/telemetry.parquet")
    parts = report.halves(df, meta)
    found["telemetry, days"] = told(power.campaign(parts.reference, parts.channels, 2880, 0.03, per_month=30))
    return found


def streams() -> dict:
    """Months of 1,000 scores with a correlation of 0.9: defaults of river, and settings from a reference, widened and not."""
    months, found = [remembering(0.9, 1000, 1, 500 + s)["0"] for s in range(20)], {}
    default = {"ADWIN": 0.002, "Page–Hinkley": 1 / 50}
    for name, setting in default.items():
        found[name] = {"promised": 1 - math.exp(-0.2), "default": rated(sum(bool(online.alarms(name, setting, m)) for m in months), 20)}
        for said, width in (("as it is", 1.0), ("widened", online._CAUTION)):
            kept, online._CAUTION, alarms = online._CAUTION, width, 0
            for r in range(3):
                chosen = online.set_on(remembering(0.9, 4000, 1, r)["0"].to_numpy(), name, per_month=0.2, length=1000, stretches=30)
                alarms += sum(bool(online.alarms(name, chosen.setting, m)) for m in months)
            online._CAUTION = kept
            found[name][said] = rated(alarms, 60)
    return found


if __name__ == "__main__":
    result = {"clean": [clean_windows(*case) for case in ((0.0, 3000, 200, 6, 0.05), (0.5, 3000, 200, 6, 0.05), (0.9, 3000, 200, 6, 0.05),
                                                          (0.9, 1600, 100, 6, 0.05), (0.9, 3000, 200, 18, 0.05))]}
    result |= {"tables": tables(), "streams": streams()}
    (HERE / "monitoring.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, ensure_ascii=False))
