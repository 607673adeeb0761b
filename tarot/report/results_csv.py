"""Results as files: JSON, and beside it the answers and texts as CSV under the same name."""

from collections.abc import Sequence
from pathlib import Path

from tarot._files.atomic import write_atomically
from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.results_file import comparisons_to_json
from tarot.evaluation.results.reward_comparison import RewardComparison, rewards_to_json
from tarot.report.csv_file import csv_beside, write_csv

_COMMON = ("model", "task", "seed", "adapter")


def save_comparisons(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Write comparisons as a JSON file, and beside it as a CSV file, each atomically.

    Raises:
        TarotError: a file cannot be written.

    Example:
        >>> save_comparisons([comparison], "results.json")
        >>> Path("results.csv").exists()
        True
    """
    write_atomically(Path(path), comparisons_to_json(comparisons).encode())
    write_comparisons_csv(Path(path), sorted(comparisons, key=lambda comparison: comparison.id))


def save_rewards(comparisons: Sequence[RewardComparison], path: str | Path) -> None:
    """Write reward comparisons, as `save_comparisons` does."""
    write_atomically(Path(path), rewards_to_json(comparisons).encode())
    write_rewards_csv(Path(path), comparisons)


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
        >>> header, *rows = write_comparisons_csv(Path("results.json"), [comparison]).read_text().splitlines()
        >>> header.removeprefix("model,task,seed,adapter,num_fewshot,search,document,arm,")
        'predicted,greedy,gold_probability,without_number,gold,predicted_text,greedy_text,gold_text,text'
    """
    setting = ("num_fewshot", "search")
    numbers = ("document", "arm", "predicted", "greedy", "gold_probability", "without_number", "gold")
    columns = (*numbers, "predicted_text", "greedy_text", "gold_text", "text")
    rows = [
        (
            *(getattr(comparison, name) for name in _COMMON),
            comparison.shots,
            comparison.search,
            *(row[name] for name in columns),
        )
        for comparison in comparisons
        for row in comparison.answer_rows()
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
