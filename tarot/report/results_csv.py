"""The answers and texts of comparisons as a CSV file, beside the JSON file of the same name."""

from collections.abc import Sequence
from pathlib import Path

from tarot.evaluation.results import Comparison
from tarot.evaluation.reward_results import RewardComparison
from tarot.report.csv_file import csv_beside, write_csv

_COMMON = ("model", "task", "seed", "adapter")


def write_comparisons_csv(results: Path, comparisons: Sequence[Comparison]) -> Path:
    """Write one row a comparison, document and arm; an empty list gives the header alone.

    Args:
        results: the JSON file of the comparisons; the CSV file gets its name with `.csv`.
        comparisons: what the JSON file holds.

    Returns:
        The CSV file.

    Raises:
        TarotError: the file cannot be written.

    Example:
        >>> write_comparisons_csv(Path("results.json"), [comparison]).read_text().splitlines()[0]
        'model,task,seed,adapter,num_fewshot,search,document,arm,predicted,greedy,gold_probability,without_number,gold,text'
    """
    setting = ("num_fewshot", "search")
    columns = ("document", "arm", "predicted", "greedy", "gold_probability", "without_number", "gold", "text")
    rows = [
        (*(getattr(comparison, name) for name in _COMMON), comparison.shots, comparison.search, *row)
        for comparison in comparisons
        for row in comparison.to_pandas()[list(columns)].itertuples(index=False)
    ]
    return _write(results, (*_COMMON, *setting, *columns), rows)


def write_rewards_csv(results: Path, comparisons: Sequence[RewardComparison]) -> Path:
    """Write one row a comparison, document and arm, as `write_comparisons_csv` does."""
    columns = ("document", "arm", "reward", "fluency", "prompt", "text")
    rows = [
        (*(getattr(comparison, name) for name in _COMMON), comparison.reward, *row)
        for comparison in comparisons
        for row in comparison.to_pandas()[list(columns)].itertuples(index=False)
    ]
    return _write(results, (*_COMMON, "reward_name", *columns), rows)


def _write(results: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    file = csv_beside(results)
    write_csv(file, header, rows)
    return file
