"""Side effects as a folder: the matrix and the trade-off as SVG, and the numbers behind them as CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tarot.analysis.neutral_text import NEUTRAL_TOKENS, OnStep, neutral_text, silent
from tarot.analysis.side_effects import (
    STRENGTHS,
    SUITE,
    StrengthPoint,
    TaskChange,
    check_strength,
    measure_task_changes,
    measure_trade_off,
)
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.as_tuned import config_of
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.rewards import is_reward
from tarot.objectives.task_loading import load_tasks
from tarot.report import mechanism
from tarot.report.folder import write_csv, write_svg


@dataclass(frozen=True)
class Effects:
    """By adapter: the change on every task, and the trade-off of its strength."""

    matrix: Mapping[str, Mapping[str, TaskChange]]
    curves: Mapping[str, Sequence[StrengthPoint]]


def measure_effects(
    loaded: LoadedModel,
    adapters: Mapping[str, Adapter],
    output: str | Path,
    tasks: Sequence[str] = (SUITE,),
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_tokens: int = NEUTRAL_TOKENS,
    seed: int = 0,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> Effects:
    """Measure what each adapter changes on the tasks, zero-shot, and on neutral text; write `effects` and `tradeoff`.

    The tasks' prompts are chat where every adapter was tuned on chat.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapters: by the name that rows and curves have.
        output: folder to write to.
        tasks: names of tasks, groups or tags; each adapter's own is added.
        strengths: factors of the angles in [0, 1], for the trade-off.
        n_tokens: of neutral text, at least.
        seed: of the neutral text.
        include_path: folder of further task files.
        limit: only the first documents of each task.
        batch_size: most sequences of one pass; None leaves it to us.
        on_step: called with what is being worked on, how much of it is done, and of how much.

    Raises:
        TarotError: a strength outside [0, 1], an adapter without a recipe or one tuned for a reward; else as
            `tarot.evaluate`.
    """
    for name, adapter in adapters.items():
        if is_reward(tuned_for := config_of(adapter).objective):
            raise TarotError(
                "adapters tuned on right answers, for what a strength buys",
                f"{name}, tuned for {tuned_for}",
                "tarot evaluate --side-effects has the rest",
            )
        adapter.find_sites(
            loaded.model
        )  # or it does not fit; like all that can be wrong, said before minutes are spent
    for strength in strengths:
        check_strength(strength)
    own = {name: config_of(adapter).task for name, adapter in adapters.items()}
    suite = list(dict.fromkeys([*load_tasks(tasks, include_path)["tasks"], *own.values()]))
    text = neutral_text(loaded, n_tokens, seed, batch_size, on_step)
    rows = measure_task_changes(
        loaded,
        list(adapters.values()),
        suite,
        include_path=include_path,
        num_fewshot=0,
        limit=limit,
        apply_chat_template=all(config_of(adapter).apply_chat_template for adapter in adapters.values()),
        batch_size=batch_size,
        on_step=on_step,
    )
    effects = Effects(
        dict(zip(adapters, rows, strict=True)),
        {
            name: measure_trade_off(
                loaded,
                adapter,
                text,
                strengths,
                include_path=include_path,
                limit=limit,
                batch_size=batch_size,
                on_step=on_step,
            )
            for name, adapter in adapters.items()
        },
    )
    _write(Path(output), effects, own)
    return effects


def _write(output: Path, effects: Effects, own: Mapping[str, str]) -> None:
    matrix = [
        (name, task, own[name] == task, c.base, c.edited, c.gain.value, c.gain.low, c.gain.high, c.gain.p, c.gain.n)
        for name, row in effects.matrix.items()
        for task, c in row.items()
    ]
    header = ("adapter", "task", "tuned_on", "base", "edited", "change", "low", "high", "p", "documents")
    write_csv(output / "effects.csv", header, matrix)
    gains = {name: {task: change.gain for task, change in row.items()} for name, row in effects.matrix.items()}
    write_svg(output / "effects.svg", mechanism.effect_matrix("effects", gains, own))

    points = [
        (
            name,
            point.strength,
            point.change.edited,
            *(point.change.gain.value, point.change.gain.low, point.change.gain.high),
            *(point.drift.kl.value, point.drift.kl.low, point.drift.kl.high),
            *(point.drift.base_perplexity, point.drift.perplexity, point.drift.tokens),
        )
        for name, curve in effects.curves.items()
        for point in curve
    ]
    gain_and_kl = ("score", "gain", "gain_low", "gain_high", "kl_nats", "kl_low", "kl_high")
    header_of_points = ("adapter", "strength", *gain_and_kl, "base_perplexity", "perplexity", "tokens")
    write_csv(output / "tradeoff.csv", header_of_points, points)
    curves = {name: [(p.strength, p.change.gain, p.drift.kl) for p in curve] for name, curve in effects.curves.items()}
    write_svg(output / "tradeoff.svg", mechanism.trade_off("tradeoff", curves))
