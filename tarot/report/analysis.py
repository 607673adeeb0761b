"""An analysis as a folder: each picture as SVG, and the numbers behind it as CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tarot.analysis import flips as flipping
from tarot.analysis.attention import Pattern, patterns
from tarot.analysis.heads import HeadMaps, edited_heads, head_effects, head_maps
from tarot.analysis.lens import layer_probabilities
from tarot.analysis.prompts import answer_of
from tarot.analysis.protocol import documents, greedy_answers, make_objective
from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.lm_eval_results import check_scorable
from tarot.evaluation.statistics.means import mean_intervals
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Request
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.samples import Sample
from tarot.objectives.task_loading import load_task
from tarot.report import figures, mechanism
from tarot.report.folder import write_csv, write_svg

# Attention weights below this, of base and edited, are left out of the CSV.
FAINT = 1e-3
# Tokens whose attention is shown, from the prompt's end: more would be pixels that nobody can tell apart.
LONGEST_DRAWN = 256

Step = Callable[[str, int, int], None]


def analyse(
    loaded: LoadedModel,
    adapter: Adapter,
    output: str | Path,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    on_step: Step = lambda what, done, total: None,
) -> list[Path]:
    """Draw what an edit does inside the model, and return the files written.

    `lens`: the answer's probability after each layer, on every document that the adapter's task evaluates. `heads`:
    what each head brings on the samples that the adapter was tuned on. `flips`: the documents that turned right or
    wrong, and the tokens that moved there. `attention`: where heads look in the first document that turned right, or
    in the first of all.

    Of an adapter tuned for a reward, which has no right answers, `attention` in the first document, and `layers`: what
    each layer's heads bring together, since an evaluation that writes texts is too slow for one a head.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: what `tarot.tune` returned or saved.
        output: folder to write to.
        reward: the one to judge texts by; None for what it was tuned for.
        include_path: folder of further task files.
        limit: only the first documents.
        batch_size: most sequences of one pass on the samples; None leaves it to us.
        on_step: called with what is being worked on, how much of it is done, and of how much.

    Raises:
        TarotError: an adapter without a recipe, one that does not fit the model, other data than it was tuned on, a
            task whose written answers nothing judges, a model that a lens does not fit, or one without attention
            weights (the rest is written by then).
    """
    output, model = Path(output), loaded.model
    encode = TarotLM(model, tokenizer=loaded.tokenizer).encode
    samples = documents(loaded, adapter, include_path=include_path, limit=limit)
    objective = make_objective(loaded, adapter, reward=reward, include_path=include_path, batch_size=batch_size)

    requests = [answer_of(sample, encode, loaded.tokenizer) for sample in samples]
    if isinstance(objective, GenerationObjective):
        files = _attention(output, loaded, adapter, requests[0].context, on_step)
        return files + _layers(output, adapter, objective, reward or config_of(adapter).objective, on_step)
    check_scorable(load_task(config_of(adapter).task, include_path))  # said before minutes are spent, for the flips
    files = _lens(output, loaded, adapter, requests, on_step)

    n_scores = 2 * len(edited_heads(adapter.angles)) + 2
    maps = head_maps(objective, adapter.angles, lambda done: on_step("heads", done, n_scores))
    files += _heads(output, adapter, maps, config_of(adapter).objective)

    asked: dict[str, Any] = {"include_path": include_path, "limit": limit, "batch_size": batch_size}
    on_step("flips", 0, 2)
    base = greedy_answers(loaded, adapter, None, **asked)
    on_step("flips", 1, 2)
    edited = greedy_answers(loaded, adapter, adapter, **asked)
    found = flipping.flips(model, loaded.tokenizer, adapter, samples, encode, base, edited)
    on_step("flips", 2, 2)
    files += _flips(output, samples, found)

    chosen = next((flip.document for flip in found if flip.gained), 0)
    return files + _attention(output, loaded, adapter, requests[chosen].context, on_step)


def _lens(
    output: Path, loaded: LoadedModel, adapter: Adapter, requests: Sequence[Request], on_step: Step
) -> list[Path]:
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        on_step("lens", done, 2 * len(requests))

    base = layer_probabilities(loaded.model, requests, advance).double()
    with adapter.apply(loaded.model):
        edited = layer_probabilities(loaded.model, requests, advance).double()
    differences = mean_intervals((edited - base).tolist())
    rows = [
        (layer, layer in adapter.edit.layers, float(before), float(after), change.value, change.low, change.high)
        for layer, (before, after, change) in enumerate(zip(base.mean(0), edited.mean(0), differences, strict=True))
    ]
    header = ("layer", "edited_layer", "base", "edited", "difference", "low", "high")
    write_csv(output / "lens.csv", header, rows)
    means = (base.mean(0).tolist(), edited.mean(0).tolist())
    figure = mechanism.by_layer("lens", *means, differences, adapter.edit.layers, len(requests))
    write_svg(output / "lens.svg", figure)
    return [output / "lens.csv", output / "lens.svg"]


def _heads(output: Path, adapter: Adapter, maps: HeadMaps, objective: str) -> list[Path]:
    alone, missed, layers = maps.alone.tolist(), maps.missed.tolist(), adapter.edit.layers
    angles = adapter.angles.norm(dim=-1).tolist()
    rows = [
        (layer, head, angles[y][head], alone[y][head], missed[y][head])
        for y, layer in enumerate(layers)
        for head in range(len(angles[y]))
    ]
    write_csv(output / "heads.csv", ("layer", "head", "angle_norm_radians", "alone", "missed"), rows)
    unit = "nats" if objective in ("log_probability", "margin") else "fraction"
    gain = figures.signed(maps.whole - maps.identity)
    for name, values, title in (
        ("heads-alone", alone, f"Gain of turning each head alone (all together: {gain})"),
        ("heads-missed", missed, f"Loss of undoing each head alone (all together: {gain})"),
    ):
        write_svg(output / f"{name}.svg", figures.head_map(name, values, layers, unit, title, "no head matters"))
    return [output / "heads.csv", output / "heads-alone.svg", output / "heads-missed.svg"]


def _flips(output: Path, samples: Sequence[Sample], found: Sequence[flipping.Flip]) -> list[Path]:
    rows = [
        (
            samples[flip.document].id,
            "gained" if flip.gained else "lost",
            flip.gold,
            flip.base,
            flip.edited,
            moved.text,
            moved.base,
            moved.edited,
            moved.edited - moved.base,
            samples[flip.document].pairs[flip.gold][0],
        )
        for flip in found
        for moved in flip.moved
    ]
    header = ("document", "flip", "right", "base", "edited", "token", "log_p_base", "log_p_edited", "moved", "prompt")
    write_csv(output / "flips.csv", header, rows)
    figure = mechanism.moved_tokens("flips", flipping.most_moved(found), len(found))
    write_svg(output / "flips.svg", figure)
    return [output / "flips.csv", output / "flips.svg"]


def _layers(output: Path, adapter: Adapter, objective: GenerationObjective, reward: str, on_step: Step) -> list[Path]:
    heads = edited_heads(adapter.angles)
    rows = [[head for head in sorted(heads) if head[0] == row] for row in range(len(adapter.edit.layers))]
    turned_rows = [row for row in rows if row]
    n_scores = 2 * len(turned_rows) + 2
    # The reward itself, also where the search would refuse what it costs in fluency.
    _, _, found = head_effects(
        lambda angles: objective.evaluate(angles).reward,
        adapter.angles,
        turned_rows,
        lambda done: on_step("layers", done, n_scores),
    )
    layers = [adapter.edit.layers[row[0][0]] for row in turned_rows]
    header = ("layer", "heads", "alone", "missed")
    csv_rows = [(layer, len(row), *values) for layer, row, values in zip(layers, turned_rows, found, strict=True)]
    write_csv(output / "layers.csv", header, csv_rows)
    write_svg(output / "layers.svg", mechanism.layers_alone_and_missed("layers", layers, found, reward))
    return [output / "layers.csv", output / "layers.svg"]


def _attention(output: Path, loaded: LoadedModel, adapter: Adapter, prompt: Sequence[int], on_step: Step) -> list[Path]:
    on_step("attention", 0, 1)
    tokens = [str(loaded.tokenizer.decode([token])) for token in prompt]
    shown = patterns(loaded.model, adapter, prompt)
    on_step("attention", 1, 1)
    first = max(0, len(tokens) - LONGEST_DRAWN)
    rows = [
        (p.layer, p.head, i, j, tokens[i], tokens[j], float(p.base[i, j]), float(p.edited[i, j]))
        for p in shown
        for i, j in (p.base.maximum(p.edited) >= FAINT).nonzero().tolist()
        if j >= first
    ]
    header = ("layer", "head", "query", "key", "query_token", "key_token", "base", "edited")
    write_csv(output / "attention.csv", header, rows)
    maps = [(_heading(p), p.base[first:, first:].tolist(), p.edited[first:, first:].tolist()) for p in shown]
    write_svg(output / "attention.svg", mechanism.heat_maps("attention", maps))
    return [output / "attention.csv", output / "attention.svg"]


def _heading(pattern: Pattern) -> str:
    angle = f"turned {pattern.angle:.2f}" if pattern.angle else "not turned"
    return f"layer {pattern.layer}, head {pattern.head}\n{angle}, moved {pattern.moved:.3f}"
