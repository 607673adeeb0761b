"""lm-evaluation-harness, with edited models.

`TarotLM` is the lm-eval model `tarot`: the stock Hugging Face model with an adapter applied, and with log-probabilities
from `tarot.models.scoring.scorer`, which runs shared prefixes once.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import isinf
from typing import Any

import transformers
from accelerate import Accelerator
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor, distributed
from tqdm import tqdm

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError, UnknownName
from tarot.models.chat import ChatRenderer
from tarot.models.load import load_model
from tarot.models.missing_numbers import BrokenRows, check_some_number, grouped, is_number
from tarot.models.prompt_encoder import PromptEncoder
from tarot.models.scoring.rope import constant_rope_length
from tarot.models.scoring.scorer import Request, Scorer

logger = logging.getLogger(__name__)

# Sequences of one pass where lm-eval itself batches (generation): its own detection runs the longest context it can.
GENERATION_BATCH = 8
# Arguments of HFLM that say how to prompt and to read answers: all others are about loading, which it does not here.
# `trust_remote_code` lm-eval's own command adds, for data sets; models are loaded without.
HFLM_ARGUMENTS = frozenset(
    {
        *("add_bos_token", "backend", "chat_template_args", "enable_thinking", "logits_cache", "max_length"),
        *("prefix_token_id", "think_end_token", "truncation", "trust_remote_code"),
    }
)
# Where a task's description is if the chat template has no system role; results and adapters record it.
SYSTEM_MOVED = "in the first user message"
# Key under which a response cache remembers whose answers it holds; no hash of a request is of this form.
CACHE_OWNER = "tarot:owner"


@register_model("tarot")
class TarotLM(HFLM):
    """The lm-eval model `tarot`: `--model tarot --model_args pretrained=REF,adapter=DIR`.

    Args:
        pretrained: a model reference (`tarot models` lists some), or a loaded transformers model.
        adapter: folder of an adapter to apply; none for the base model.
        tokenizer: with a loaded model, its tokenizer.
        device: auto, cpu or cuda:N.
        dtype: auto, float32, bfloat16 or float16.
        device_map: auto, balanced, balanced_low_0 or sequential: spread over devices, memory and disk by accelerate.
        batch_size: most sequences of one pass, or auto.
        max_batch_size: accepted from lm-eval; passes that do not fit are halved instead.
        hflm_args: those of `HFLM` that are not about loading, such as `max_length` or `add_bos_token`.

    Raises:
        UnknownName: another argument: what an evaluation ignored in silence, its results would belie.

    Under `accelerate launch` each process has a model of its own, by its reference, and answers its share of documents.
    """

    def __init__(
        self,
        pretrained: str | transformers.PreTrainedModel,
        adapter: str | None = None,
        tokenizer: transformers.PreTrainedTokenizerBase | None = None,
        device: str | None = None,
        dtype: str = "auto",
        device_map: str | None = None,
        batch_size: int | str | None = "auto",
        max_batch_size: int | None = None,
        **hflm_args: Any,
    ) -> None:
        own_arguments = ("pretrained", "adapter", "tokenizer", "device", "dtype", "device_map", "batch_size")
        for unknown in sorted(hflm_args.keys() - HFLM_ARGUMENTS):
            raise UnknownName("argument of the model 'tarot'", unknown, [*own_arguments, *HFLM_ARGUMENTS])
        self.reference = pretrained if isinstance(pretrained, str) else None
        # Documents by task whose texts could not be generated, and the prompts' tokens of the latest ones.
        self.unanswered: dict[str, set[int]] = {}
        self.broken_prompts: set[tuple[int, ...]] = set()
        self._checks_numbers = isinstance(pretrained, str)  # lm-eval's own command does not; `evaluate` does
        processes = _processes() if isinstance(pretrained, str) else None
        if isinstance(pretrained, str):
            own = _device(processes) if processes else device or "auto"
            loaded = load_model(pretrained, device=own, dtype=str(dtype), device_map=device_map)
            pretrained, tokenizer = loaded.model, loaded.tokenizer
        self.row_limit = None if batch_size in (None, "auto") else parse_batch_size(batch_size)
        with quiet("lm_eval.models.huggingface"):
            super().__init__(
                pretrained=pretrained,
                tokenizer=tokenizer,
                batch_size=self.row_limit or GENERATION_BATCH,
                **hflm_args,
            )
        if processes:  # the stock model leaves this to whoever hands it a loaded one
            self.accelerator = processes
            self._rank, self._world_size = processes.process_index, processes.num_processes
        self.adapter = Adapter.from_pretrained(adapter) if adapter else None
        if self.adapter:
            self.adapter.merge(self.model)

    @cached_property
    def chat_renderer(self) -> ChatRenderer:
        """The tokenizer's chat template, checked: no message may lose its text."""
        return ChatRenderer(self.tokenizer, self.chat_template_args)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages; TarotError if the chat template raises or leaves out a message's text."""
        return self.chat_renderer(chat_history, add_generation_prompt)

    @cached_property
    def prompt_encoder(self) -> PromptEncoder:
        """Encode texts with the arguments `add_bos_token` and `prefix_token_id`."""
        return PromptEncoder(self.tokenizer, self.add_bos_token, self.custom_prefix_token_id)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **_: Any
    ) -> list[int]:
        """Encode a text as `PromptEncoder.encode` does; `left_truncate_len` keeps that many tokens of the end."""
        tokens = self.prompt_encoder.encode(string, add_special_tokens)
        return tokens[-left_truncate_len:] if left_truncate_len else tokens

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts to generate from as `PromptEncoder.encode_batch` does."""
        return self.prompt_encoder.encode_batch(strings, padding_side, left_truncate_len, truncation)

    def encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode a prompt and an answer as `PromptEncoder.encode_pair` does."""
        return self.prompt_encoder.encode_pair(context, continuation)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score lm-eval's requests: log p(continuation | context) in nats, and whether it is the greedy one.

        Raises:
            TarotError: a continuation without tokens, or with more than the model's context holds.
        """
        if self.enable_thinking:
            raise TarotError("enable_thinking for tasks that generate", "a task that scores answers", "leave it out")
        asked = tqdm(requests, desc="Tokenizing inputs", disable=disable_tqdm)
        encoded = [(request.args, *self.encode(*request.args)) for request in asked]
        names = [
            f"document {request.doc_id} of {request.task_name or 'no task'}, answer {request.args[1]!r}"
            for request in requests
        ]
        scores = self._scores(encoded, names, disable_tqdm)
        self._check_numbers(requests, scores)
        return scores

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts: log p(text | first token) in nats, in windows where it is longer than the context.

        The first token is counted once, whether or not the tokenizer adds it and whether or not the text spells it.
        """
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for i, request in enumerate(requests):
            first, tokens = self.encode("", *request.args)
            cut = get_rolling_token_windows(tokens, first[-1], self.max_length - len(first) + 1, context_len=1)
            for n, (context, scored) in enumerate(map(make_disjoint_window, cut)):
                windows.append((None, context if n else first + context[1:], scored))
                owners.append(i)
        totals = [0.0] * len(requests)
        for start in range(0, len(windows), self.batch_size):
            part = slice(start, start + self.batch_size)
            for i, score in zip(owners[part], self._loglikelihood_tokens(windows[part], disable_tqdm), strict=True):
                totals[i] += score[0]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        self._check_numbers(requests, totals)
        return totals

    def _check_numbers(self, requests: Sequence[Instance], answers: Sequence[object]) -> None:
        """Where lm-eval reports the results itself, say which documents have no number; TarotError if none has one."""
        if self._checks_numbers:
            broken = [each for each, answer in zip(requests, answers, strict=True) if not is_number(answer)]
            counts = {task: len(ids) for task, ids in grouped(requests).items()}
            check_some_number(grouped(broken), counts)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        return self._scores(requests, [f"request {i}" for i in range(len(requests))], disable_tqdm)

    def _scores(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        names: Sequence[str],
        disable_tqdm: bool,
    ) -> list[tuple[float, bool]]:
        """Score encoded requests, with the ends of contexts that are too long.

        `names` say in errors which request is meant.
        """
        pairs = []
        for name, (_, context, continuation) in zip(names, requests, strict=True):
            if len(continuation) > self.max_length:
                limit = f"an answer of at most {self.max_length} tokens, the model's context"
                raise TarotError(limit, f"{len(continuation)} in {name}")
            excess = max(0, len(context) + len(continuation) - 1 - self.max_length)
            pairs.append(Request(tuple(context[excess:]), tuple(continuation)))
        if cut := sum(len(pair.context) < len(context) for pair, (_, context, _) in zip(pairs, requests, strict=True)):
            logger.warning(
                "%d of %d prompts are longer than the model's %d tokens: their first tokens are left out.",
                cut,
                len(requests),
                self.max_length,
            )
        scorer = Scorer(self.model, pairs, self.row_limit, names)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Scoring answers") as progress:
            for i, score in scorer.stream():
                answers[i] = (score.log_probability, score.greedy)
                if requests[i][0] is not None:  # a window of loglikelihood_rolling, which caches whole texts
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answers[i])
                progress.update()
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write lm-eval's continuations, in batches.

        A prompt that may grow beyond the length at which the model's rotary embeddings change is not batched, since
        padding would change its text. transformers decides what becomes of keys cached before.
        """
        self.broken_prompts.clear()
        texts = self._generated(requests, disable_tqdm)
        broken = [request for request in requests if self.broken_prompts and self._is_broken(request.args[0])]
        for task, ids in grouped(broken).items():
            self.unanswered.setdefault(task, set()).update(ids)
        if self._checks_numbers:
            check_some_number(grouped(broken), {task: len(ids) for task, ids in grouped(requests).items()})
        return texts

    def _is_broken(self, prompt: str) -> bool:
        """Whether the logits after a prompt, of which generation may have kept only the end, were not numbers."""
        tokens = tuple(self.tok_encode(prompt))
        return any(tokens[len(tokens) - len(broken) :] == broken for broken in self.broken_prompts)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        rows = BrokenRows(self.eot_token_id)
        texts: Tensor = super()._model_generate(context, max_length, stop, logits_processor=[rows], **generation_kwargs)
        mask = generation_kwargs["attention_mask"].bool()
        self.broken_prompts |= {tuple(context[row][mask[row]].tolist()) for row in rows.rows}
        return texts

    def _generated(self, requests: list[Instance], disable_tqdm: bool) -> list[str]:
        constant = constant_rope_length(self.model)
        if isinf(constant):
            return super().generate_until(requests, disable_tqdm=disable_tqdm)
        alone = [self._generated_length(*request.args) > constant for request in requests]
        written = iter(super().generate_until([r for r, a in zip(requests, alone, strict=True) if not a], disable_tqdm))
        single = super().generate_until
        return [
            single([request], disable_tqdm=True)[0] if apart else next(written)
            for request, apart in zip(requests, alone, strict=True)
        ]

    def _generated_length(self, prompt: str, options: dict[str, Any]) -> int:
        """Most tokens of a prompt and what is generated from it."""
        most = int(normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"])
        return max(len(self.tok_encode(prompt)) + most, int(options.get("max_length") or 0))

    @property
    def fingerprint(self) -> str:
        """Of the adapter, or `base`."""
        return self.adapter.fingerprint if self.adapter else "base"

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse a response cache of another model or edit: lm-eval's keys are prompts alone."""
        if (cache := getattr(cache_hook, "dbdict", None)) is not None:
            model = self.reference or self.config._name_or_path or type(self.model).__name__
            owner = f"{model} {self.fingerprint}"
            if (found := cache.get(CACHE_OWNER, owner if not len(cache) else "another model")) != owner:
                raise TarotError(f"a response cache of {owner}", f"one of {found}", "give --use_cache another path")
            cache[CACHE_OWNER] = owner
            cache.commit()
        super().set_cache_hook(cache_hook)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside results, with the adapter's fingerprint (or `base`)."""
        info = {**super().get_model_info(), "adapter": self.fingerprint, "reference": self.reference}
        return {**info, "description": SYSTEM_MOVED} if self.chat_renderer.system_moved else info


def _processes() -> Accelerator | None:
    """The processes that `accelerate launch` started, if it did."""
    return Accelerator() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def leave_processes() -> None:
    """Leave those that share the documents, if there are any, before this one ends.

    One that ends as a member can abort, and its launcher then ends the others before they have written.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _device(processes: Accelerator) -> str:
    """This process's; accelerate numbers CPUs too, of which there is one."""
    return "cpu" if processes.device.type == "cpu" else str(processes.device)


def parse_batch_size(text: int | str) -> int:
    """A positive number of sequences; anything else is a TarotError that quotes it."""
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise TarotError("a batch size from 1, or 'auto'", repr(text), "")
    return size


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Errors only, from loggers whose warnings our users can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
