"""The lm-evaluation-harness model `tarot`: a causal model, edited or not, that scores shared prefixes once.

`TarotLM` is lm-eval's Hugging Face model with an adapter applied and with log-probabilities from
`tarot.models.scoring.scorer`.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from math import isinf
from typing import Any

import transformers
from accelerate import Accelerator
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor, distributed
from tqdm import tqdm

from tarot.edit.adapter import Adapter
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.gate import find_gate
from tarot.edit.rope import constant_rope_length, initial_rope
from tarot.errors import TarotError, UnknownName
from tarot.models.answer_log import NumbersOnly, claim_response_cache
from tarot.models.batch_size import parse_batch_size
from tarot.models.chat import SYSTEM_MOVED, ChatRenderer
from tarot.models.load import load_model
from tarot.models.missing_numbers import BrokenRows, check_some_number, documents_by_task, is_number
from tarot.models.offline import quiet_loggers
from tarot.models.prompt_encoder import PromptEncoder, check_generated_lengths, fit_to_context
from tarot.models.scoring.scorer import Scorer

# Sequences of one pass in generation. lm-eval's own search for a batch size would run the longest possible context.
GENERATION_BATCH = 8
# Arguments of HFLM about prompts and answers. The others are about loading, which tarot does itself.
# lm-eval's own command adds `trust_remote_code`, which is for data sets; models are loaded without.
HFLM_ARGUMENTS = frozenset(
    {
        *("add_bos_token", "chat_template_args", "enable_thinking", "logits_cache", "max_length"),
        *("prefix_token_id", "think_end_token", "truncation", "trust_remote_code"),
    }
)


CAUSAL_BACKENDS = ("default", "causal")


@register_model("tarot")
class TarotLM(HFLM):
    """The lm-eval model `tarot`: `--model tarot --model_args pretrained=REF,adapter=DIR`.

    Args:
        pretrained: a model reference (`tarot models` lists some), or a loaded transformers model.
        adapter: folder or hub id of an adapter to merge, or to apply if it has a gate; None for the base model.
        tokenizer: the tokenizer of a loaded model.
        device: auto, cpu or cuda:N.
        dtype: auto, float32, bfloat16 or float16.
        device_map: auto, balanced, balanced_low_0 or sequential: accelerate spreads the layers (see `load_model`).
        batch_size: most sequences of one pass, or auto.
        max_batch_size: accepted from lm-eval and not used: passes that do not fit in memory are halved.
        backend: `default` or `causal`.
        hflm_args: arguments of `HFLM` about prompts and answers, such as `max_length` or `add_bos_token`.

    Raises:
        UnknownName: an unknown argument, since silently ignoring one would make the results misleading.
        TarotError: `backend` is not causal, or the model or adapter cannot be loaded.

    Under `accelerate launch` each process loads the model by its reference and answers its share of the documents.

    Example:
        >>> from lm_eval.api.instance import Instance
        >>> from tarot.models.lm_eval_model import TarotLM
        >>> lm = TarotLM(model, tokenizer=tokenizer)
        >>> request = Instance("loglikelihood", {}, ("The capital of France is", " Paris"), 0)
        >>> ((log_probability, greedy),) = lm.loglikelihood([request], disable_tqdm=True)
        >>> log_probability < 0
        True
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
        backend: str = "default",
        **hflm_args: Any,
    ) -> None:
        own_arguments = ("pretrained", "adapter", "tokenizer", "device", "dtype", "device_map", "batch_size")
        if unknown := sorted(hflm_args.keys() - HFLM_ARGUMENTS):
            raise UnknownName("argument of the model 'tarot'", unknown[0], [*own_arguments, *HFLM_ARGUMENTS])
        if backend not in CAUSAL_BACKENDS:
            raise TarotError(f"The model 'tarot' has no backend {backend!r}: it is always causal. Leave backend out.")
        self.reference = pretrained if isinstance(pretrained, str) else None
        self._hflm_args = hflm_args
        # Ids, by task, of documents whose texts could not be generated, and the token ids of the latest such prompts.
        self.unanswered: dict[str, set[int]] = {}
        self.broken_prompts: set[tuple[int, ...]] = set()
        self._checked_prompts: set[int] = set()
        # lm-eval's own command does not look for NaN; `evaluate`, which passes a loaded model, does.
        self._checks_numbers = isinstance(pretrained, str)
        self._has_earlier_answers = False
        processes = accelerate_processes() if isinstance(pretrained, str) else None
        if isinstance(pretrained, str):
            target = process_device(processes) if processes else device or "auto"
            loaded = load_model(pretrained, device=target, dtype=str(dtype), device_map=device_map)
            pretrained, tokenizer = loaded.model, loaded.tokenizer
        self.row_limit = parse_batch_size(batch_size)
        with quiet_loggers("lm_eval.models.huggingface"):
            super().__init__(
                pretrained=pretrained,
                tokenizer=tokenizer,
                batch_size=self.row_limit or GENERATION_BATCH,
                **hflm_args,
            )
        if processes:  # HFLM leaves this to the caller that passes a loaded model
            self.accelerator = processes
            self._rank, self._world_size = processes.process_index, processes.num_processes
        edit = Adapter.from_pretrained(adapter) if adapter else None
        self.fingerprint = edit.fingerprint if edit else "base"
        self._open_edit: AbstractContextManager[object] | None = None
        if edit and edit.gate:
            # A gate cannot be merged. The edit stays open as long as this object keeps it.
            self._open_edit = edit.apply(self.model)
            self._open_edit.__enter__()
        elif edit:
            edit.merge(self.model)

    @cached_property
    def chat_renderer(self) -> ChatRenderer:
        """Render messages by the tokenizer's chat template and check that no message loses its text."""
        return ChatRenderer(self.tokenizer, self.chat_template_args)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages as a prompt; raises what `ChatRenderer` raises."""
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
        """Return log p(continuation | context) in nats for each request, and whether greedy decoding writes it.

        Raises:
            TarotError: a continuation has no tokens, or more than the model's context holds.
        """
        if self.enable_thinking:
            raise TarotError("enable_thinking for tasks that generate", "a task that scores answers", "leave it out")
        shown = tqdm(requests, desc="Tokenizing inputs", disable=disable_tqdm)
        encoded = [(request.args, *self.encode(*request.args)) for request in shown]
        names = [
            f"document {request.doc_id} of {request.task_name or 'no task'}, answer {request.args[1]!r}"
            for request in requests
        ]
        scores = self._scores(encoded, names, disable_tqdm)
        self._check_numbers(requests, [r for r, score in zip(requests, scores, strict=True) if not is_number(score)])
        return scores

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return log p(text | first token) in nats for each text, in windows where it is longer than the context.

        The first token counts once, whether or not the tokenizer adds it and whether or not the text spells it.
        """
        cut = [self.prompt_encoder.rolling_windows(request.args[0], self.max_length) for request in requests]
        windows = [(None, *window) for each in cut for window in each]
        owners = [i for i, each in enumerate(cut) for _ in each]
        totals = [0.0] * len(requests)
        for start in range(0, len(windows), self.batch_size):
            part = slice(start, start + self.batch_size)
            for i, score in zip(owners[part], self._loglikelihood_tokens(windows[part], disable_tqdm), strict=True):
                totals[i] += score[0]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        self._check_numbers(requests, [r for r, total in zip(requests, totals, strict=True) if not is_number(total)])
        return totals

    def _check_numbers(self, requests: Sequence[Instance], broken: Sequence[Instance]) -> None:
        """Log which documents have no number, where lm-eval reports the results; TarotError if none has one."""
        if self._checks_numbers:
            counts = {task: len(ids) for task, ids in documents_by_task(requests).items()}
            check_some_number(documents_by_task(broken), counts, has_others=self._has_earlier_answers)

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
        """Score encoded requests. Long contexts are cut from the left; errors use `names`."""
        pairs = fit_to_context([each[1:] for each in requests], names, self.max_length)
        prompts = [self._prompt_of(each) for each in requests] if find_gate(self.model) else None
        scorer = Scorer(self.model, pairs, self.row_limit, names, prompts=prompts)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Scoring answers") as progress:
            for i, score in scorer.stream():
                answers[i] = (score.log_probability, score.greedy)
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answers[i])
                progress.update()
        return answers

    def _prompt_of(self, request: tuple[tuple[str, str] | None, list[int], list[int]]) -> tuple[int, ...]:
        """Return the prompt tokens that a gate sees; for a request without a prompt, the whole text.

        The request's own context lacks the white space at the end of the prompt, which counts as the answer's.
        """
        texts, context, continuation = request
        prompt = [*context, *continuation] if texts is None else self.tok_encode(texts[0]) or context
        return tuple(prompt[-self.max_length :])

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate lm-eval's continuations, in batches.

        Prompts that may grow beyond the length at which rotary embeddings change (`tarot.edit.rope`) are not
        batched, since padding would change their texts. Prompts too long for the text to fit lose their beginning.

        Raises:
            TarotError: the texts alone may fill the model's context, or no text has a number.
        """
        self.broken_prompts.clear()
        prompts = hash(tuple((request.args[0], str(request.args[1])) for request in requests))
        if prompts not in self._checked_prompts:  # a search generates from the same prompts hundreds of times
            check_generated_lengths([self._lengths(*request.args) for request in requests], self.max_length)
            self._checked_prompts.add(prompts)
        texts = self._generate(requests, disable_tqdm)
        broken = [request for request in requests if self._is_broken(request.args[0])]
        for task, ids in documents_by_task(broken).items():
            self.unanswered.setdefault(task, set()).update(ids)
        self._check_numbers(requests, broken)
        return texts

    def _is_broken(self, prompt: str) -> bool:
        """Whether the logits after a prompt were not numbers. Generation may have kept only the prompt's end."""
        if not self.broken_prompts:
            return False
        tokens = tuple(self.tok_encode(prompt))
        return any(tokens[len(tokens) - len(broken) :] == broken for broken in self.broken_prompts)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        rows = BrokenRows(self.eot_token_id)
        with initial_rope(self.model):
            texts: Tensor = super()._model_generate(
                context, max_length, stop, logits_processor=[rows], **generation_kwargs
            )
        mask = generation_kwargs["attention_mask"].bool()
        self.broken_prompts |= {tuple(context[row][mask[row]].tolist()) for row in rows.rows}
        return texts

    def _generate(self, requests: list[Instance], disable_tqdm: bool) -> list[str]:
        """Generate in batches, but one by one where a text may grow beyond the length of constant rotary embeddings."""
        constant = constant_rope_length(self.model)
        if isinf(constant):
            return super().generate_until(requests, disable_tqdm=disable_tqdm)
        generate = super().generate_until
        grows = [self._longest(*request.args) > constant for request in requests]
        batched = [request for request, too_long in zip(requests, grows, strict=True) if not too_long]
        texts = iter(generate(batched, disable_tqdm))
        return [
            generate([request], disable_tqdm=True)[0] if too_long else next(texts)
            for request, too_long in zip(requests, grows, strict=True)
        ]

    def _longest(self, prompt: str, options: dict[str, Any]) -> int:
        """Return the most tokens of a prompt and its generated text together."""
        return max(sum(self._lengths(prompt, options)), int(options.get("max_length") or 0))

    def _lengths(self, prompt: str, options: dict[str, Any]) -> tuple[int, int]:
        """Return the tokens of a prompt, and the most that are generated after it."""
        most = int(normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"])
        return len(self.tok_encode(prompt)), most

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Keep answers that are numbers in a response cache, unless it belongs to another model, edit or setting.

        lm-eval's keys contain only the prompts.

        Raises:
            TarotError: the cache belongs to another model, edit or setting.
        """
        if (cache := getattr(cache_hook, "dbdict", None)) is not None:
            model = self.reference or self.config._name_or_path or type(self.model).__name__
            settings = [str(self.model.dtype), weights_fingerprint(self.model), *sorted(self._hflm_args.items())]
            digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
            owner = f"{model} {self.fingerprint}, settings {digest}"
            self._has_earlier_answers = claim_response_cache(cache, owner)
        super().set_cache_hook(NumbersOnly(cache_hook, self._is_broken))

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes beside results, with the adapter's fingerprint (or `base`)."""
        info = {**super().get_model_info(), "adapter": self.fingerprint, "reference": self.reference}
        return {**info, "description": SYSTEM_MOVED} if self.chat_renderer.system_moved else info


def accelerate_processes() -> Accelerator | None:
    """Return the processes that `accelerate launch` started, if there are several."""
    return Accelerator() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def leave_processes() -> None:
    """Leave the group of processes that share the documents, if there is one; call it before this process ends.

    A process that ends as a member can abort. Its launcher then stops the others before they have written results.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def process_device(processes: Accelerator) -> str:
    """Return this process's device. accelerate numbers CPUs too, of which there is one."""
    return "cpu" if processes.device.type == "cpu" else str(processes.device)
