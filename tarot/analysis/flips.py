"""Documents that an edit turns right or wrong, and the next tokens whose probability it changed there."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.analysis.next_tokens import next_log_probabilities
from tarot.analysis.results import Flip, FlipsResult, TokenChange
from tarot.edit.adapter import Adapter
from tarot.evaluation.results.changes import changed_rows
from tarot.evaluation.results.comparison import Arm
from tarot.models.scoring.scorer import Request
from tarot.objectives.tasks.samples import Sample


def find_flips(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter,
    samples: Sequence[Sample],
    requests: Sequence[Request],
    base: Arm,
    edited: Arm,
    n_tokens: int = 6,
) -> FlipsResult:
    """Return the documents that flipped, in their order; none for which one of the models has no number.

    Args:
        model: a causal language model, unedited.
        tokenizer: its tokenizer.
        adapter: the edit.
        samples: the documents.
        requests: prompt and right answer of each document, as tokens.
        base: answers of the unedited model.
        edited: answers of the edited model.
        n_tokens: tokens of each flip besides the right answer's first.
    """
    changes = changed_rows([sample.gold for sample in samples], base.greedy, edited.greedy)
    missing = {*base.without_number, *edited.without_number}
    lost = tuple(samples[row].id for row in sorted(missing))
    rows = sorted({*changes.fixed, *changes.broken} - missing)
    if not rows:
        return FlipsResult((), lost)
    contexts = [requests[row].context for row in rows]
    before = next_log_probabilities(model, contexts)
    with adapter.apply(model):
        after = next_log_probabilities(model, contexts)
    flips = []
    for row, old, new in zip(rows, before, after, strict=True):
        # Rank by probability. In nats, the largest changes are of tokens that neither model would ever write.
        changed_most = (new.exp() - old.exp()).abs().topk(min(n_tokens, len(old))).indices.tolist()
        tokens = dict.fromkeys([requests[row].continuation[0], *changed_most])
        moved = tuple(TokenChange(t, str(tokenizer.decode([t])), float(old[t]), float(new[t])) for t in tokens)
        sample = samples[row]
        prompt = sample.pairs[sample.gold][0]
        old_answer, new_answer = base.greedy[row], edited.greedy[row]
        fixed = new_answer == sample.gold
        flips.append(Flip(row, sample.id, prompt, fixed, sample.gold, old_answer, new_answer, moved))
    return FlipsResult(tuple(flips), lost)
