"""Judges: do corrected intervals contain the truth, and what do twenty injections reach?

    python benchmarks/llm/judges.py                             # writes benchmarks/llm/judges.json
    python benchmarks/llm/judges.py --endpoint URL --model NAME # a served model as judge as well (OpenAI-compatible)
    python benchmarks/llm/judges.py --quick                     # 200 simulations, on the screen only

Coverage. A system is right in a share `prevalence` of its answers; a judge with the given sensitivity and specificity
judges JUDGED of them, independently; people label some answers. Counted over SIMULATIONS draws: how often the 95 %
interval contains the prevalence. `naive`: Wilson's interval of the share that the judge passes. `elsewhere`:
Rogan-Gladen with the interval of Lang and Reiczigel, half of the labels on right answers and half on wrong ones.
`same`: prediction-powered inference, labels drawn at random from the same answers. A judge whose labels do not show
it to be better than chance is refused; `refused` is that share, and coverage is counted over the others.

Injections. Ten questions with reference; twelve wordings of each right answer, five wrong answers, and the twenty forms
around a wrong answer. The judge is a program; with --endpoint a model judges ten right answers, ten wrong ones and the
twenty forms once, greedily and held to the JSON schema, and fewer of them free.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np

SEED, JUDGED, SIMULATIONS = 20261125, 1000, 2000
PREVALENCES, JUDGES, LABELS = (0.3, 0.6, 0.9), ((0.9, 0.9), (0.8, 0.7), (0.95, 0.6)), (20, 50, 100, 200)
PROMISED = (0.93, 0.97)
HERE = Path(__file__).resolve()

FACTS = [
    # question, reference, the same in other words, wrong answers
    (
        "How far is the Moon on average, in km?",
        "384,400 km",
        "384400 km",
        ["12 km", "384 km", "3,844,000 km", "384,400 miles", "unknown"],
    ),
    ("Which agency operates Gaia?", "ESA", "esa", ["NASA", "JAXA", "Roscosmos", "ESO", "ESA or NASA"]),
    ("In which year was Sputnik 1 launched?", "1957", "1957.0", ["1958", "1961", "1969", "1957 or 1958", "57"]),
    (
        "Which planet did Cassini orbit?",
        "Saturn",
        "SATURN",
        ["Jupiter", "Uranus", "Neptune", "Titan", "Saturn and Jupiter"],
    ),
    (
        "What is the period of a geostationary orbit, in hours?",
        "23.93",
        "23.930",
        ["24.93", "12", "90", "23", "-23.93"],
    ),
    (
        "Which gas is most abundant on Titan?",
        "nitrogen",
        "Nitrogen",
        ["methane", "oxygen", "argon", "hydrogen", "no nitrogen"],
    ),
    ("How many moons has Mars?", "2", "2.0", ["1", "3", "20", "two or three", "none"]),
    ("Which rocket launched Rosetta?", "Ariane 5", "ariane 5", ["Ariane 4", "Ariane 6", "Soyuz", "Vega", "Ariane"]),
    ("What share of the rows is anomalous?", "20 %", "20.0 %", ["20", "2 %", "80 %", "0.20 %", "200 %"]),
    (
        "Which instrument measures magnetic fields?",
        "the magnetometer",
        "a magnetometer",
        ["the spectrometer", "the altimeter", "the gyroscope", "a magnet", "the magnetosphere"],
    ),
]
WORDINGS = (
    "{}",
    "{}.",
    "The answer is {}.",
    "The correct answer is: {}",
    "Answer: {}",
    "It is {}.",
    "I think {}",
    "The final answer is {}!",
    "  {}\n",
    "\u201c{}\u201d",
    "That would be {}.",
    "**{}**",
)


def coverage(simulations: int) -> list[dict]:
    """Share of simulations in which each interval contains the truth, for every setting."""
    from esa_notebooks.llm.evaluation.correction import (
        JudgeRefused,
        CorrectionError,
        beside_people,
        prediction_powered,
        rogan_gladen,
    )
    from esa_notebooks.stats import wilson

    def verdicts(rng, right, sensitivity, specificity):
        return np.where(right, rng.random(right.shape) < sensitivity, rng.random(right.shape) >= specificity)

    table = []
    for prevalence, (sensitivity, specificity), labels in product(PREVALENCES, JUDGES, LABELS):
        rng = np.random.default_rng([SEED, int(100 * prevalence), int(100 * sensitivity), labels])
        told = {name: {"covers": 0, "width": 0.0, "told": 0} for name in ("naive", "elsewhere", "same")}
        chosen = np.arange(labels) < labels // 2
        for _ in range(simulations):
            passed = verdicts(rng, rng.random(JUDGED) < prevalence, sensitivity, specificity)
            right = rng.random(labels) < prevalence
            elsewhere, same = (verdicts(rng, where, sensitivity, specificity) for where in (chosen, right))
            found = {"naive": wilson(int(passed.sum()), JUDGED)}
            try:
                found["elsewhere"] = rogan_gladen(passed, beside_people(elsewhere, chosen)).interval
            except JudgeRefused:
                pass
            try:
                found["same"] = prediction_powered(passed, same, right).interval
            except CorrectionError:  # refused, or fewer than two wrong answers among the labels
                pass
            for name, (low, high) in found.items():
                told[name]["covers"] += low <= prevalence <= high
                told[name]["width"] += high - low
                told[name]["told"] += 1
        row = {"prevalence": prevalence, "sensitivity": sensitivity, "specificity": specificity, "labels": labels}
        for name, one in told.items():
            n = max(1, one["told"])
            row[name] = {
                "coverage": round(one["covers"] / n, 4),
                "width": round(one["width"] / n, 3),
                "refused": round(1 - one["told"] / simulations, 4),
            }
        table.append(row)
        print(
            *(row[k] for k in ("prevalence", "sensitivity", "specificity", "labels")),
            *(
                f"{name} {row[name]['coverage']:.1%} ({row[name]['width']:.2f}, refused {row[name]['refused']:.1%})"
                for name in told
            ),
            flush=True,
        )
    return table


def cases() -> dict[str, list]:
    """Known-right answers, known-wrong ones and injections around wrong ones."""
    from esa_notebooks.llm.evaluation.judging import Case, injections

    made = {"right": [], "wrong": [], "injected": []}
    for i, (question, reference, other, wrongs) in enumerate(FACTS):

        def case(kind, name, answer):
            made[kind].append(Case(f"{i} {name}", str(i), question, answer, reference))

        for j, wording in enumerate(WORDINGS):
            case("right", f"wording {j}", wording.format(other if j % 2 else reference))
        for j, wrong in enumerate(wrongs):
            case("wrong", f"wrong {j}", wrong)
        for name, text in injections(wrongs[0]):
            case("injected", name, text)
    return made


def judged(judge, made: dict[str, list], concurrency: int) -> dict:
    """What a judge makes of the cases, and whether its labels show it to be better than chance."""
    from esa_notebooks.llm.evaluation.correction import JudgeRefused, beside_people, better_than_chance
    from esa_notebooks.llm.evaluation.judging import single

    start, found = time.perf_counter(), {}
    frames = {kind: single(judge, these, concurrency) for kind, these in made.items()}
    for kind, frame in frames.items():
        found[kind] = {
            "n": len(frame),
            **frame["verdict"].value_counts().to_dict(),
            "reached the judge": int((frame["by"] == "judge").sum()),
        }
    passed = frames["injected"][frames["injected"]["passed"]]
    found["forms that passed"] = sorted({item.split(" ", 1)[1] for item in passed["item"]})
    beside = beside_people(
        np.r_[frames["right"]["passed"], frames["wrong"]["passed"]],
        np.r_[np.ones(len(frames["right"]), bool), np.zeros(len(frames["wrong"]), bool)],
    )
    found["gain"] = [round(v, 3) for v in (beside.gain, *beside.interval)]
    try:
        better_than_chance(beside)
        found["used"] = "yes"
    except JudgeRefused as refused:
        found["used"] = f"refused: {refused}"
    print(judge.name, json.dumps(found, indent=1), f"{time.perf_counter() - start:.0f} s", flush=True)
    return found


def models(endpoint: str, name: str, made: dict[str, list]) -> dict:
    """A served model as judge: held to the schema, and free. Few right and wrong answers, and the twenty forms."""
    from langchain_openai import ChatOpenAI

    from esa_notebooks.llm.evaluation.judging import Judge, schema

    few = {"right": made["right"][::13], "wrong": made["wrong"][::5], "injected": made["injected"][:20]}
    chat = ChatOpenAI(
        base_url=endpoint, model=name, api_key="none", temperature=0, seed=0, max_tokens=48, max_retries=0, timeout=600
    )
    held = Judge(f"{name}, held to the schema", chat.bind(response_format=schema()))
    return {
        "held to the schema": judged(held, few, 4),
        "free": judged(Judge(f"{name}, free", chat), few | {"injected": few["injected"][:2]}, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 simulations; nothing is written")
    parser.add_argument("--endpoint", help="base URL of an OpenAI-compatible server, up to /v1")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the model's name there")
    asked = parser.parse_args()
    from langchain_core.runnables import RunnableLambda

    from esa_notebooks.llm.evaluation.judging import Judge, by_program

    made = cases()
    found = {"program": judged(Judge("program", RunnableLambda(by_program)), made, 1)}
    if asked.endpoint:
        found[asked.model] = models(asked.endpoint, asked.model, made)
    table = coverage(200 if asked.quick else SIMULATIONS)
    outside = [
        {**{k: row[k] for k in ("prevalence", "sensitivity", "specificity", "labels")}, "interval": name, **row[name]}
        for row in table
        for name in ("elsewhere", "same")
        if not PROMISED[0] <= row[name]["coverage"] <= PROMISED[1]
    ]
    print(f"{len(outside)} of {2 * len(table)} settings outside {PROMISED[0]:.0%} to {PROMISED[1]:.0%}")
    if asked.quick:
        return 0
    result = {
        "command": "python benchmarks/llm/judges.py"
        + (f" --endpoint URL --model {asked.model}" if asked.endpoint else ""),
        "seed": SEED,
        "judged": JUDGED,
        "simulations": SIMULATIONS,
        "promised": PROMISED,
        "coverage": table,
        "outside": outside,
        "judges": found,
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("numpy", "scipy", "langchain-core")},
        },
    }
    path = HERE.with_suffix(".json")
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(json.dumps(result, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
