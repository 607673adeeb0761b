"""The answer of a report in words: what was edited, whether it helped, how sure that is, what it cost.

Terms and texts, for the first screen of the page.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.results.changes import changed_rows
from tarot.evaluation.results.comparison import EDITED, FEW_SHOT, OUTSIDE, Comparison
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.results.scored_comparison import ScoredComparison, mean_gain
from tarot.evaluation.statistics.formatting import fraction, interval, p_value, signed
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Difference
from tarot.evaluation.statistics.seeds import MeanGain
from tarot.report.side_effect_words import Costs, costs_of
from tarot.report.table import mean_score


@dataclass(frozen=True)
class Answer:
    """Content of the first screen.

    Attributes:
        verdict: whether the edit helped, a sentence.
        helped: True, False, or None if the interval contains zero.
        facts: terms and their texts.
        command: shell line that repeats it; "" for several comparisons.
        not_repeated: what the command does not repeat.
        cost_command: shell line that measures side effects; "" if they were measured, or for several comparisons.
        cost_note: explains the folder in the command and how to add its result to the page; "" without a command.
    """

    verdict: str
    helped: bool | None
    facts: Sequence[tuple[str, str]]
    command: str = ""
    not_repeated: str = ""
    cost_command: str = ""
    cost_note: str = ""


def answer(scored: ScoredComparison, metric: str, costs: Sequence[Costs] = ()) -> Answer:
    """Return the answer of one comparison.

    Args:
        scored: the comparison.
        metric: name of the metric that it was scored by.
        costs: measured side effects of any adapters; those of others are left out.
    """
    comparison, gain = scored.comparison, scored.gain
    title = METRICS[metric].title
    facts = [("edited", describe_edit(comparison) + _limit(comparison))]
    before, after = scored.scores[scored.base], scored.scores[EDITED]
    scores = f"{title} from {fraction(before)} to {fraction(after)} on {_documents(gain.n)}"
    facts.append(("score", scores + _among_choices(comparison, metric)))
    facts.append(("gain", f"{_interval(gain)}, p {p_value(gain.p)}"))
    facts.append(("answers", _changes(comparison, metric)))
    facts += _outside(comparison, metric)
    facts += _few_shot(scored)
    facts.append(("elsewhere", _elsewhere(comparison, costs)))
    return Answer(
        _form_verdict(comparison, gain, metric) or _verdict(gain),
        _helped(gain),
        facts,
        comparison.command,
        comparison.not_repeated,
        *_cost_command(comparison, costs),
    )


def answer_several(scored_comparisons: Sequence[ScoredComparison], metric: str, costs: Sequence[Costs] = ()) -> Answer:
    """Return the answer of several comparisons: means, and how many gains are above and below zero."""
    scored, title = list(scored_comparisons), METRICS[metric].title
    gain = mean_gain(scored, lambda each: each.gain)
    above, below = (sum(map(test, scored)) for test in (lambda s: s.gain.low > 0, lambda s: s.gain.high < 0))
    n = len({(each.comparison.task, key) for each in scored for key in each.comparison.keys})
    before = mean_score(scored, lambda each: each.scores[each.base]) or 0.0
    after = mean_score(scored, lambda each: each.scores[EDITED]) or 0.0
    facts = [
        ("edited", _edited_several([each.comparison for each in scored])),
        ("score", f"mean {title} from {fraction(before)} to {fraction(after)} on {_documents(n)}"),
        ("gain", f"mean {_interval(gain)}"),
        (
            "each",
            f"the interval lies above zero in {above} of {len(scored)} comparisons, below zero in {below}, "
            f"and contains zero in {len(scored) - above - below}",
        ),
    ]
    over_few_shot = [each for each in scored if each.over_few_shot and each.base != FEW_SHOT]
    if over_few_shot:
        mean = mean_gain(over_few_shot, lambda each: each.over_few_shot)
        reached = mean_score(over_few_shot, lambda each: each.scores[FEW_SHOT]) or 0.0
        facts.append(("few-shot", f"prompting with the same labels reaches {fraction(reached)}; {_over(mean)}"))
    facts.append(("elsewhere", _elsewhere_of_several([each.comparison for each in scored], costs)))
    return Answer(_verdict(gain, "On average, the"), _helped(gain), facts)


def answer_reward(comparison: RewardComparison, costs: Sequence[Costs] = ()) -> Answer:
    """Return the answer of a comparison of texts; `costs` as for `answer`."""
    base, edited = comparison.base.summary, comparison.edited.summary
    fluency, n = comparison.fluency_gain, comparison.gain.n
    return Answer(
        _verdict(comparison.gain),
        _helped(comparison.gain),
        [
            ("edited", f"{comparison.model} for {comparison.reward}"),
            ("score", f"mean reward from {base.reward:.3f} to {edited.reward:.3f} on {_documents(n)}"),
            ("gain", f"{_interval(comparison.gain)}, p {p_value(comparison.gain.p)}"),
            ("fluency", f"{_interval(fluency)} nats a token under the unedited model"),
            ("elsewhere", _elsewhere(comparison, costs)),
        ],
        comparison.command,
        comparison.not_repeated,
        *_cost_command(comparison, costs),
    )


FORM_HARM = "The model writes a valid choice more often, but picks the right one less often."
FORM_ONLY = "The edit helped with the form of the answers. It may or may not help with the choice among them."
NOT_MEASURED = "What it costs on other tasks and texts was not measured."
EFFECTS = "effects"
"""Folder that the command of `effects_command` writes."""


def effects_command(comparison: Comparison | RewardComparison) -> str:
    """Return the shell line that measures what the edit costs elsewhere, after the lines of `command`."""
    values = {
        "--model": comparison.model,
        "--dtype": comparison.dtype.removeprefix("auto"),
        "--adapter": comparison.folder,
        "--include-path": comparison.include_path,
        "--output-path": EFFECTS,
    }
    return " ".join(["tarot effects", *(f"{name} {quote(value)}" for name, value in values.items() if value)])


def _cost_command(comparison: Comparison | RewardComparison, costs: Sequence[Costs]) -> tuple[str, str]:
    """Return the command that measures side effects and the note on it; empty if other tasks were measured."""
    if costs_of(costs, comparison.adapter).tasks:
        return "", ""
    folder = f"{comparison.folder} is the adapter's folder."
    return effects_command(comparison), f"{folder} tarot report ... --analysis {EFFECTS} adds the result to this page."


def _elsewhere(comparison: Comparison | RewardComparison, costs: Sequence[Costs]) -> str:
    """Say what the edit costs on other tasks and texts, as far as that was measured."""
    measured = costs_of(costs, comparison.adapter)
    text = measured.text or (_describe_held_out([comparison.held_out]) if comparison.held_out else "")
    if not (measured.tasks or text):
        return NOT_MEASURED
    return f"{measured.tasks} {text}".strip() if measured.tasks else f"{text} Other tasks: not measured."


def _elsewhere_of_several(comparisons: Sequence[Comparison], costs: Sequence[Costs]) -> str:
    measured = {each.adapter: costs_of(costs, each.adapter) for each in comparisons}
    sentences = [f"{each.adapter}: {text}" for each in measured.values() for text in (each.tasks, each.text) if text]
    held_out = {each.adapter: each.held_out for each in comparisons if each.held_out}
    if unmeasured := [value for adapter, value in held_out.items() if not measured[adapter].text]:
        sentences.append(_describe_held_out(unmeasured))
    n_missing = sum(not each.tasks for each in measured.values())
    if not sentences:
        return f"{NOT_MEASURED} Each comparison below has the command."
    if n_missing:
        sentences.append(f"Other tasks: not measured of {_count(n_missing, 'edit')}, whose sections have the command.")
    return " ".join(sentences)


def _describe_held_out(measured: Sequence[HeldOut]) -> str:
    """Say what edits change on text that they were not tuned on; ranges for several."""
    if len(measured) == 1:
        (only,) = measured
        kl = f"{only.kl:.3f} nats a token {interval(only.low, only.high, fraction)}"
        ratio = f"{only.perplexity_ratio:.3f}"
        return f"On text that it was not tuned on, it changes the model by KL {kl}, perplexity x{ratio}."
    kl, ratio = (
        f"{min(values):.3f} to {max(values):.3f}"
        for values in ([each.kl for each in measured], [each.perplexity_ratio for each in measured])
    )
    return (
        f"On text that they were not tuned on, {len(measured)} edits change the model by KL {kl} nats a token, "
        f"perplexity x{ratio}."
    )


def describe_edit(comparison: Comparison) -> str:
    """Return how many heads, angles and layers of which model the edit turns."""
    heads = [[angle for angle in row if angle] for row in comparison.head_angles]
    if not comparison.head_angles:
        return comparison.model
    angles = f" ({comparison.n_angles:,} angles)" if comparison.n_angles else ""
    n_heads, n_layers = sum(map(len, heads)), sum(map(bool, heads))
    return f"{_count(n_heads, 'attention head')}{angles} in {_count(n_layers, 'layer')} of {comparison.model}"


def _limit(comparison: Comparison) -> str:
    return f", within {comparison.max_kl:g} nats a token on retained prompts" if comparison.max_kl else ""


def _edited_several(comparisons: Sequence[Comparison]) -> str:
    counts = {
        kind: len({getattr(comparison, kind) for comparison in comparisons}) for kind in ("model", "task", "seed")
    }
    return ", ".join(_count(n, kind) for kind, n in counts.items())


def _among_choices(comparison: Comparison, metric: str) -> str:
    """Return the scores of the likeliest choices, since a gain may be one of the form of the answer."""
    among = metric.removeprefix("greedy_")
    if among == metric:
        return ""
    before, after = (comparison.score(among, arm=arm) for arm in (comparison.base.name, EDITED))
    return f"; {METRICS[among].title} from {fraction(before)} to {fraction(after)}"


def _form_verdict(comparison: Comparison, gain: Gain, metric: str) -> str:
    """Describe a gain in what the model writes without a gain among the choices; "" for every other gain."""
    among = metric.removeprefix("greedy_")
    if among == metric or gain.low <= 0 or (choice := comparison.gain(among)).low > 0:
        return ""
    return FORM_HARM if choice.high < 0 else FORM_ONLY


def _outside(comparison: Comparison, metric: str) -> list[tuple[str, str]]:
    """Say how often the base wrote none of the choices, and what it wrote most often."""
    base = comparison.base
    outside = sum(answer == OUTSIDE for answer in base.greedy)
    if not (outside and metric.startswith("greedy_")):
        return []
    text = f"none of the choices in {outside:,} of {_count(len(base.greedy), 'document')}"
    if written := Counter(text for text in base.written if text):
        most, n = written.most_common(1)[0]
        text += f", most often \N{LEFT DOUBLE QUOTATION MARK}{most.strip()}\N{RIGHT DOUBLE QUOTATION MARK} ({n:,})"
    return [("base wrote", text)]


def _few_shot(scored: ScoredComparison) -> list[tuple[str, str]]:
    """Say what few-shot prompting reaches with the labels that the edit used, and how far the edit is from it."""
    if scored.over_few_shot is None:
        return []
    if scored.base == FEW_SHOT:
        shots = _count(scored.comparison.num_fewshot, "shot")
        return [("few-shot", f"the base has {shots} in its prompts, as the edited model has")]
    text = (
        f"prompting with {scored.arms[FEW_SHOT][0].labels} of the same {scored.comparison.samples} labels reaches "
        f"{fraction(scored.scores[FEW_SHOT])}; {_over(scored.over_few_shot)}"
    )
    if scored.over_draws:
        text += f"; over the mean of {len(scored.comparison.draws)} draws of them, {_interval(scored.over_draws)}"
    return [("few-shot", text)]


def _over(gain: Gain | MeanGain) -> str:
    return f"the edit against it: {_interval(gain)}"


def _changes(comparison: Comparison, metric: str) -> str:
    answers = METRICS[metric].answers
    base, edited = answers(comparison.base), answers(comparison.arm(EDITED))
    fixed, broken = map(len, changed_rows(comparison.gold, base, edited))
    right = sum(gold == before == after for gold, before, after in zip(comparison.gold, base, edited, strict=True))
    wrong = len(comparison.gold) - fixed - broken - right
    return f"{fixed:,} fixed, {broken:,} broken, {right:,} right with both, {wrong:,} wrong with both"


def _helped(gain: Gain | MeanGain | Difference) -> bool | None:
    return True if gain.low > 0 else False if gain.high < 0 else None


def _verdict(gain: Gain | MeanGain | Difference, subject: str = "The") -> str:
    helped = _helped(gain)
    if helped is None:
        return f"{subject} edit may or may not help: the 95% interval of the gain contains zero."
    return f"{subject} edit helped." if helped else f"{subject} edit lowered the score."


def _interval(gain: Gain | MeanGain | Difference) -> str:
    return f"{signed(gain.value)}, 95% interval {signed(gain.low)} to {signed(gain.high)}"


def _documents(n: int) -> str:
    return _count(n, "held-out document")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
