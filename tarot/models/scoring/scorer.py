"""Score continuations of token sequences: log p(continuation | context), in few and full passes.

Prompts of one task share a system text, the same shots, the same question before each of its choices. Tokens that
several requests share run once, and their keys and values are reused (`tarot.models.scoring.prefix_tree`,
`tarot.models.scoring.prefix_cache`). The remaining tokens are batched by length. Only the positions that predict a
continuation are projected to the vocabulary.

A score equals that of one pass over the request's own tokens. Where the length of a pass changes its rotary embeddings
(`tarot.edit.rope`), longer requests share no prefix and are batched only with those of their own length.

Where a gated edit is open (`tarot.edit.gate`), its gate decides on each request's prompt before anything is scored. The
requests that it opens for are then scored with the edit, and the others without.

The plan depends on the requests alone: keep one `Scorer` to score the same requests many times.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from math import isinf
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from tarot.edit.gate import find_gate
from tarot.edit.patch import Patch
from tarot.edit.rope import constant_rope_length, initial_rope, pass_group
from tarot.edit.sites import decoder_layers
from tarot.errors import TarotError
from tarot.models.scoring.frozen_layers import FrozenLayerCache
from tarot.models.scoring.prefix_cache import CACHE, can_share_prefix, share_prefix
from tarot.models.scoring.prefix_tree import PrefixNode, Row, build_tree, cut_batches


class Request(NamedTuple):
    """Token ids to condition on and token ids to score; both non-empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Score(NamedTuple):
    """Summed log-probability in nats, and whether greedy decoding would have written exactly this continuation."""

    log_probability: float
    greedy: bool


# A pass over fewer tokens costs about as much as one over this many, so sharing or splitting below it saves nothing.
PASS_COST_TOKENS = {"cpu": 32}
PASS_COST_TOKENS_ACCELERATOR = 1024
# Limits of one pass if the caller gives no batch size: tokens, prefix included, and logits, of which several copies
# exist for a while (256 MB each in float32). A batch that does not fit in memory is halved.
AUTO_PASS_TOKENS, AUTO_PASS_LOGITS = 16384, 2**26


@contextmanager
def predictions_at(model: PreTrainedModel, rows: Int[Tensor, " n"], positions: Int[Tensor, " n"]) -> Iterator[None]:
    """Project only some positions to the vocabulary: logits come out `1 x n x vocabulary`.

    Selecting at the output head's input is exact: models change logits afterwards (scale, soft cap) element by element.
    """
    head = model.get_output_embeddings()

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]  # on the head's device, where a model is spread over several
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *args[1:])

    with Patch(head) as patch:
        patch.before(head, select)
        patch.apply()
        yield


def max_length(model: PreTrainedModel) -> int | None:
    """Return the most tokens of one sequence; None where the model's configuration does not say."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a pass failed because memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class Scorer:
    """log p(continuation | context) = sum_i log p(t_i | context, t_1 ... t_(i-1)), for fixed requests on one model.

    Args:
        model: a causal language model.
        requests: token pairs; a context is at least one token, as is a continuation.
        batch_size: most rows of one pass; None chooses it by memory.
        names: what errors call each request.
        n_frozen_layers: number of first layers that do not change while the scorer is used. They run for the first
            scoring only.
        prompts: what a gate decides on for each request. Default: the contexts.

    Raises:
        TarotError: an empty context or continuation, or a request longer than the model's context.

    Example:
        >>> from tarot.models.scoring.scorer import Request, Scorer
        >>> context, answer = tokenizer("The capital of France is").input_ids, tokenizer(" Paris").input_ids
        >>> (score,) = Scorer(model, [Request(tuple(context), tuple(answer))]).scores()
        >>> score.log_probability < 0
        True
    """

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        batch_size: int | None = None,
        names: Sequence[str] | None = None,
        n_frozen_layers: int = 0,
        prompts: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        self.model = model
        self.prompts = [request.context for request in requests] if prompts is None else prompts
        self._hold: Callable[[], AbstractContextManager[None]] = nullcontext
        self._frozen_layers = FrozenLayerCache(
            list(decoder_layers(model))[:n_frozen_layers] if n_frozen_layers and can_share_prefix(model) else []
        )
        self._frozen_prefixes: dict[Hashable, list[Any]] = {}
        self._n_frozen_layers = n_frozen_layers
        self.requests = requests
        self.batch_size = batch_size
        self.max_length = max_length(model)
        for i, request in enumerate(requests):
            self._check(names[i] if names else f"request {i}", request)

        self._constant_rope = constant_rope_length(model)
        # A prefix of another sequence needs no row of its own, because attention is causal. In reverse order each
        # sequence follows those that it is a prefix of.
        order = sorted(range(len(requests)), key=lambda i: (self._group(i), self._sequence(i)))
        self._rows: list[Row] = []
        self._row_of = [0] * len(requests)
        for i in reversed(order):
            sequence, start, group = self._sequence(i), len(requests[i].context) - 1, self._group(i)
            last = self._rows[-1] if self._rows else None
            if last and last.group == group and last.tokens[: len(sequence)] == sequence:
                self._rows[-1] = Row(last.tokens, min(last.start, start), group)
            else:
                self._rows.append(Row(sequence, start, group))
            self._row_of[i] = len(self._rows) - 1
        self._pass_cost = PASS_COST_TOKENS.get(model.device.type, PASS_COST_TOKENS_ACCELERATOR)

    def _check(self, name: str, request: Request) -> None:
        """Raise TarotError for a request without tokens or longer than the model's context."""
        if not request.context or not request.continuation:
            missing = "an answer without tokens" if request.context else "a prompt without tokens"
            raise TarotError("tokens to condition on and tokens to score", f"{missing} in {name}")
        length = len(request.context) + len(request.continuation) - 1
        if self.max_length and length > self.max_length:
            raise TarotError(
                f"at most {self.max_length} tokens, the model's context",
                f"{length} in {name}",
                "use fewer shots, or a model of longer context",
            )

    def _group(self, index: int) -> int:
        context, continuation = self.requests[index]
        return pass_group(len(context) + len(continuation), self._constant_rope)

    def _sequence(self, index: int) -> tuple[int, ...]:
        """Return the tokens to run: without the last one, which predicts nothing, unless the length must be exact."""
        context, continuation = self.requests[index]
        return context + (continuation if self._group(index) else continuation[:-1])

    @cached_property
    def _tree(self) -> PrefixNode:
        return build_tree(self._rows, self._pass_cost, share=can_share_prefix(self.model))

    @cached_property
    def _requests_of(self) -> list[list[int]]:
        """Requests that read their predictions from each row."""
        requests: list[list[int]] = [[] for _ in self._rows]
        for request, row in enumerate(self._row_of):
            requests[row].append(request)
        return requests

    @property
    def tokens(self) -> int:
        """Tokens that one scoring runs, padding aside."""
        return self._tree.count_tokens(self._rows)

    def _run(
        self, node: PrefixNode, depth: int, prefix: Cache | None
    ) -> Iterator[tuple[list[int], Float[Tensor, "n v"]]]:
        """Yield requests and their continuations' logits for a node and all below; `prefix` holds `depth` tokens."""
        if node.depth > depth:
            prefix = self._extend_prefix(node, depth, prefix)
        rows = sorted(node.rows, key=lambda i: len(self._rows[i].tokens))
        lengths = [len(self._rows[i].tokens) - node.depth for i in rows]
        longest = max((len(self._rows[i].tokens) for i in rows), default=1)
        read = max((sum(len(self.requests[k].continuation) for k in self._requests_of[i]) for i in rows), default=1)
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        auto = min(AUTO_PASS_TOKENS // longest, AUTO_PASS_LOGITS // (read * vocabulary))
        max_rows = self.batch_size or max(1, auto)
        for batch in cut_batches(lengths, max_rows, self._pass_cost):
            yield from self._run_batch([rows[i] for i in batch], node.depth, prefix)
        for child in node.children:
            yield from self._run(child, node.depth, prefix)

    def _extend_prefix(self, node: PrefixNode, depth: int, prefix: Cache | None) -> Cache:
        """Run a node's own tokens and return the KV prefix cache that includes them."""
        ids = torch.tensor([node.tokens[depth : node.depth]], device=self.model.device)
        extended = share_prefix(prefix, self._n_layers, keep=True)
        first = torch.zeros(1, dtype=torch.long, device=self.model.device)  # the logits are not used: project one
        key = ("prefix", *node.tokens[: node.depth])
        skips_frozen_layers = self._frozen_layers.knows(key)
        self._forward(key, ids, node.depth, extended, first, first)
        # Skipped layers produced no cache entries: reuse those of the first pass.
        if skips_frozen_layers:
            extended.layers[: self._n_frozen_layers] = self._frozen_prefixes[key]
        else:
            self._frozen_prefixes[key] = extended.layers[: self._n_frozen_layers]
        return extended

    def _run_batch(
        self, rows: list[int], depth: int, prefix: Cache | None
    ) -> Iterator[tuple[list[int], Float[Tensor, "n v"]]]:
        """Run rows that share a prefix of `depth` tokens in one pass, or in halves where memory runs out."""
        suffixes = [self._rows[i].tokens[depth:] for i in rows]
        width = max(map(len, suffixes))
        # Padding on the right needs no mask: causal attention keeps it from every position that is read, and the
        # distances that sliding windows count stay the same. Any token will do.
        ids = torch.tensor([suffix + suffix[-1:] * (width - len(suffix)) for suffix in suffixes])
        predicting: list[tuple[int, int]] = []
        requests: list[int] = []
        for k, row in enumerate(rows):
            for request in self._requests_of[row]:
                context, continuation = self.requests[request]
                begin = len(context) - 1 - depth
                predicting += [(k, position) for position in range(begin, begin + len(continuation))]
                requests.append(request)
        batch_rows, positions = torch.tensor(predicting, device=self.model.device).unbind(1)
        cache = share_prefix(prefix, self._n_layers, keep=False) if prefix else None
        try:
            logits = self._forward(
                ("rows", depth, *rows), ids.to(self.model.device), depth + width, cache, batch_rows, positions
            )
        except RuntimeError as error:
            if not out_of_memory(error) or len(rows) == 1:
                raise
            # Half of it may fit. The error keeps the pass's tensors alive, so retry outside the except block.
            logits = None
        if logits is None:
            middle = len(rows) // 2
            yield from self._run_batch(rows[:middle], depth, prefix)
            yield from self._run_batch(rows[middle:], depth, prefix)
        else:
            yield requests, logits

    @cached_property
    def _n_layers(self) -> int:
        return self.model.config.get_text_config(decoder=True).num_hidden_layers

    def _forward(
        self,
        key: Hashable,
        ids: Int[Tensor, "b s"],
        length: int,
        cache: Cache | None,
        rows: Int[Tensor, " n"],
        positions: Int[Tensor, " n"],
    ) -> Float[Tensor, "n v"]:
        """Run one pass and return the logits at these rows and positions; `length` includes the cached prefix."""
        mask = ids.new_ones(len(ids), length)
        rope = nullcontext() if isinf(self._constant_rope) else initial_rope(self.model)
        with self._hold(), rope, predictions_at(self.model, rows, positions), self._frozen_layers.passing(key):
            out = self.model(input_ids=ids, attention_mask=mask, use_cache=cache is not None, **{CACHE: cache})
        return out.logits[0]

    def logits(self) -> Iterator[tuple[list[int], Float[Tensor, "n v"]]]:
        """Yield for each pass its requests and the logits that predict their continuations, one row a token, in order.

        Every request is in one pass, and the same ones are in every scoring, unless memory runs out.
        """
        if (gate := find_gate(self.model)) is None:
            yield from self._run(self._tree, 0, None)
            return
        distinct = list(dict.fromkeys(self.prompts))
        opens = dict(zip(distinct, gate.decide(distinct), strict=True))
        for is_open in (False, True):
            part = [i for i, prompt in enumerate(self.prompts) if opens[prompt] is is_open]
            # Prefixes are shared within each part only: an edited prefix has other keys and values.
            scorer = Scorer(self.model, [self.requests[i] for i in part], self.batch_size)
            scorer._hold = partial(gate.hold, is_open)
            for requests, logits in scorer._run(scorer._tree, 0, None):
                yield [part[i] for i in requests], logits

    def _passes(self) -> Iterator[tuple[list[int], list[Tensor], list[Tensor]]]:
        """Yield for each pass: its requests, the log-probabilities of their tokens, and whether each is greedy."""
        for requests, logits in self.logits():
            tokens = torch.tensor([t for i in requests for t in self.requests[i].continuation], device=logits.device)
            chosen = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            matches = logits.argmax(-1) == tokens
            lengths = [len(self.requests[i].continuation) for i in requests]
            yield requests, list(chosen.split(lengths)), [t.all() for t in matches.split(lengths)]

    def log_probabilities(self) -> tuple[Float[Tensor, " request"], Bool[Tensor, " request"]]:
        """Score every request, differentiably.

        Returns:
            Summed log-probability of each continuation in nats, and whether greedy decoding would write it.
        """
        scores: dict[int, tuple[Tensor, Tensor]] = {}
        for requests, tokens, greedy in self._passes():
            scores.update(zip(requests, zip(tokens, greedy, strict=True), strict=True))
        return (
            torch.stack([scores[i][0].sum() for i in range(len(self.requests))]),
            torch.stack([scores[i][1] for i in range(len(self.requests))]),
        )

    def stream(self) -> Iterator[tuple[int, Score]]:
        """Yield each request's index and score when its pass is done, so that a caller can show and save progress."""
        passes = self._passes()
        while True:
            with torch.no_grad():
                done = next(passes, None)
            if done is None:
                return
            for i, tokens, greedy in zip(*done, strict=True):
                yield i, Score(tokens.sum().item(), bool(greedy))

    def scores(self) -> list[Score]:
        """Score every request, in the order given."""
        return [score for _, score in sorted(self.stream())]
