"""Write `docs/performance.md` from a run of the benchmarks: `python -m benchmarks.performance runs/benchmarks.json`.

The run's file has every round of every benchmark; `performance.json` keeps the shortest round and the ratios, and the
page is made from it alone. Benchmarks that the run lacks keep their figures. Without an argument the page is written
again.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.study.markdown import reflow, table
from tarot.errors import TarotError

HERE = Path(__file__).parent
RECORD, TEMPLATE, PAGE = HERE / "performance.json", HERE / "performance.in.md", HERE.parent / "docs" / "performance.md"


class Bench(NamedTuple):
    """One benchmark of the record.

    Attributes:
        function: the benchmark's function without `bench_`.
        parameters: between the brackets of its name.
        seconds: of its shortest round.
        info: its ratios and settings.
    """

    function: str
    parameters: str
    seconds: float
    info: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name without `wheel:`."""
        return str(self.info.get("model", "")).removeprefix("wheel:")

    @property
    def alternative(self) -> str:
        """What was timed: what follows the model in the benchmark's name."""
        return self.parameters.rpartition(f"{self.info.get('model', '')}-")[2]


def shorten(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page needs of a file that pytest-benchmark wrote."""
    machine = run["machine_info"]
    return {
        "date": run["datetime"][:10],
        "machine": {"processor": machine["cpu"].get("brand_raw", machine["machine"]), "cores": machine["cpu"]["count"]},
        "benchmarks": [
            {"name": each["name"], "seconds": float(f"{each['stats']['min']:.4g}"), "info": each["extra_info"]}
            for each in run["benchmarks"]
            if not each["name"].startswith("bench_gain[")
        ],
    }


def merge(record: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with the benchmarks of a run in place of those of the same names.

    Ratios that the run could not compute, because it had one of two alternatives, stay as they were.

    Raises:
        TarotError: The run was measured on another machine.
    """
    if run["machine"] != record["machine"]:
        raise TarotError(f"a run on {record['machine']}", str(run["machine"]), "measure everything there")
    benchmarks = {each["name"]: each for each in record["benchmarks"]}
    for each in run["benchmarks"]:
        earlier = benchmarks.get(each["name"], {}).get("info", {})
        benchmarks[each["name"]] = {**each, "info": {**earlier, **each["info"]}}
    return {**run, "benchmarks": list(benchmarks.values())}


def read_benches(record: Mapping[str, Any]) -> list[Bench]:
    """Return the record's benchmarks."""
    benches = []
    for each in record["benchmarks"]:
        function, _, parameters = each["name"].removeprefix("bench_").removesuffix("]").partition("[")
        benches.append(Bench(function, parameters, each["seconds"], each["info"]))
    return benches


def seconds(value: float) -> str:
    """Format seconds with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def by_group(benches: Sequence[Bench], function: str, *keys: str) -> Iterator[tuple[str, dict[str, Bench]]]:
    """Yield the alternatives of each group of a function, by name; `keys` of the settings tell the groups apart."""
    groups: dict[str, dict[str, Bench]] = {}
    for bench in benches:
        if bench.function == function:
            group = ", ".join([bench.model, *(f"{bench.info[key]} {key}" for key in keys)])
            groups.setdefault(group, {})[bench.alternative] = bench
    yield from groups.items()


def objective_table(benches: Sequence[Bench]) -> str:
    """Show an evaluation of the objective beside the plain loop and bare passes."""
    return table(
        ["", "tokens", "plain loop, s", "tarot, s", "plain / tarot", "tarot / bare passes"],
        [
            [
                group,
                f"{ways['ours'].info['tokens']:,}",
                seconds(ways["plain"].seconds),
                seconds(ways["ours"].seconds),
                f"{ways['ours'].info['plain_over_ours']:.1f}",
                f"{ways['ours'].info['ours_over_bare']:.2f}",
            ]
            for group, ways in by_group(benches, "objective", "shots")
        ],
    )


def scaling_tables(benches: Sequence[Bench]) -> str:
    """Show a step as labels, shots and layers grow."""
    tables = []
    for name in dict.fromkeys(bench.info["varied"] for bench in benches if bench.function == "scaling"):
        steps = [bench for bench in benches if bench.function == "scaling" and bench.info["varied"] == name]
        rows = [
            [f"{bench.info['value']:g}", f"{bench.info['tokens']:,}", seconds(bench.seconds)]
            for bench in sorted(steps, key=lambda bench: bench.info["value"])
        ]
        tables.append(table([name, "tokens", "seconds"], rows))
    return "\n\n".join(tables)


def limit_table(benches: Sequence[Bench]) -> str:
    """Show the two halves of a step under the limit."""
    return table(
        ["", "samples, s", "retained contexts, s", "retained / samples"],
        [
            [
                group,
                seconds(halves["samples"].seconds),
                seconds(halves["retained"].seconds),
                f"{halves['retained'].info['retained_over_samples']:.2f}",
            ]
            for group, halves in by_group(benches, "limit")
        ],
    )


def search_table(benches: Sequence[Bench]) -> str:
    """Show whole searches."""
    searches = [bench for bench in benches if bench.function == "search"]
    return table(
        ["search", "model", "trials", "seconds", "in trials", "share of proposing"],
        [
            [
                bench.alternative,
                bench.model,
                str(bench.info["trials"]),
                seconds(bench.seconds),
                seconds(bench.info["seconds"]),
                f"{bench.info['proposing']:.0%}",
            ]
            for bench in searches
        ],
    )


def time_to_score_table(benches: Sequence[Bench]) -> str:
    """Show the seconds until held-out documents first reached a score."""
    runs = [bench for bench in benches if bench.function == "time_to_score"]
    targets = [key for key in (runs[0].info if runs else {}) if key.startswith("seconds_to_")]
    return table(
        [
            "way",
            "model",
            *(f"seconds to F1 {key.removeprefix('seconds_to_')}" for key in targets),
            "highest",
            "last",
            "whole run, s",
        ],
        [
            [
                run.alternative,
                run.model,
                *("not reached" if run.info[key] is None else seconds(run.info[key]) for key in targets),
                f"{run.info['highest']:.3f}",
                f"{run.info['last']:.3f}",
                seconds(run.seconds),
            ]
            for run in runs
        ],
    )


def overhead_table(benches: Sequence[Bench]) -> str:
    """Show what an edit costs a forward pass and generation."""
    rows = []
    for work in ("forward", "generate"):
        for group, ways in by_group(benches, "overhead"):
            ratios = [f"x{ways[f'{work}-{how}'].info['over_unedited']:.3f}" for how in ("hooked", "merged")]
            rows.append([work, group, seconds(ways[f"{work}-unedited"].seconds), *ratios])
    return table(["work", "model", "unedited, s", "with hooks", "merged"], rows)


def switch_table(benches: Sequence[Bench]) -> str:
    """Show what it takes to change from one edit to another."""
    return table(
        ["model", "forward pass of 400 tokens, s", "hooks, s", "merged into the weights, s"],
        [
            [group, *(seconds(ways[how].seconds) for how in ("forward", "hooked", "merged"))]
            for group, ways in by_group(benches, "switch")
        ],
    )


def harness_table(benches: Sequence[Bench]) -> str:
    """Show a six-shot task through tarot and through lm-eval's own model class."""
    return table(
        ["model", "lm-eval's hf, s", "tarot, s", "ratio", "largest difference of a log-probability"],
        [
            [
                group,
                seconds(ways["stock"].seconds),
                seconds(ways["tarot"].seconds),
                f"{ways['tarot'].info['stock_over_tarot']:.1f}",
                f"{ways['tarot'].info['log_probability_error']:.1g}",
            ]
            for group, ways in by_group(benches, "harness")
        ],
    )


def generation_table(benches: Sequence[Bench]) -> str:
    """Show the sampling of texts in continuations a second."""
    rows = []
    for group, ways in by_group(benches, "generation"):
        for how in ways.values():
            rate = how.info["texts"] / how.seconds
            rows.append([group, "tarot" if how.alternative == "ours" else how.alternative, f"{rate:.2f}"])
    return table(["model", "sampled by", "continuations a second"], rows)


def startup_table(benches: Sequence[Bench]) -> str:
    """Show what a user waits for before anything is computed."""
    starts = [bench for bench in benches if bench.function == "startup"]
    return table(["", "seconds"], [[f"`{bench.parameters}`", seconds(bench.seconds)] for bench in starts])


TABLES = {
    "objective": objective_table,
    "scaling": scaling_tables,
    "limit": limit_table,
    "search": search_table,
    "time_to_score": time_to_score_table,
    "overhead": overhead_table,
    "switch": switch_table,
    "harness": harness_table,
    "generation": generation_table,
    "startup": startup_table,
}


def render(record: Mapping[str, Any]) -> str:
    """Return the page of a record."""
    benches = read_benches(record)
    machine = f"{record['machine']['processor']}, {record['machine']['cores']} cores, {record['date']}"
    contents = {"machine": machine} | {name: make(benches) for name, make in TABLES.items()}
    return reflow(TEMPLATE.read_text().format(**contents))


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="the file of `pytest benchmarks --benchmark-json`")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text())
    if options.run:
        record = merge(record, shorten(json.loads(options.run.read_text())))
    page = render(record)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
