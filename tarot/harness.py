"""lm-evaluation-harness, with edited models.

`TarotLM` is the lm-eval model `tarot`: the stock Hugging Face model with an adapter applied, and with log-probabilities
from `tarot.scoring`, which runs what prompts share once. `evaluate` measures base or edited models through lm-eval.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformers
from accelerate import Accelerator
from lm_eval import evaluator
from lm_eval.api.registry import register_model
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.huggingface import HFLM
from torch import distributed
from tqdm import tqdm

from tarot.adapter import Adapter
from tarot.errors import TarotError, UnknownName
from tarot.models import LoadedModel, load_model
from tarot.samples import ChatTemplate, check_disjoint, load_tasks
from tarot.scoring import Request, Scorer

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
        processes = _processes() if isinstance(pretrained, str) else None
        if isinstance(pretrained, str):
            own = _device(processes) if processes else device or "auto"
            loaded = load_model(pretrained, device=own, dtype=str(dtype), device_map=device_map)
            pretrained, tokenizer = loaded.model, loaded.tokenizer
        self.row_limit = None if batch_size in (None, "auto") else parse_batch_size(batch_size)
        with _quiet("lm_eval.models.huggingface"):
            super().__init__(
                pretrained=pretrained,
                tokenizer=tokenizer,
                batch_size=self.row_limit or GENERATION_BATCH,
                **hflm_args,
            )
        if processes:  # the stock model leaves this to whoever hands it a loaded one
            self.accelerator = processes
            self._rank, self._world_size = processes.process_index, processes.num_processes
        self.adapter = Adapter.load(adapter) if adapter else None
        if self.adapter:
            self.adapter.merge(self.model)

    def encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both, as `loglikelihood` encodes them; an empty context becomes the tokenizer's first token."""
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        first = self.prefix_token_id
        return ([first], tokens) if tokens[0] != first else (tokens[:1], tokens[1:])

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        # The stock model cuts what is too long, with a warning; that is its business, and rare.
        if self.backend != "causal" or any(len(c) + len(t) > self.max_length for _, c, t in requests):
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        scorer = Scorer(self.model, [Request(tuple(c), tuple(t)) for _, c, t in requests], self.row_limit)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Scoring answers") as progress:
            for i, score in scorer.stream():
                answers[i] = (score.log_probability, score.greedy)
                if requests[i][0] is not None:  # a window of loglikelihood_rolling, which caches whole texts
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answers[i])
                progress.update()
        return answers

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
        return {**super().get_model_info(), "adapter": self.fingerprint, "reference": self.reference}


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
def _quiet(*loggers: str) -> Iterator[None]:
    """Errors only, from loggers whose warnings our users can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def chat_template(lm: TarotLM, chat: bool) -> ChatTemplate | None:
    """How to render messages for this model: None for one without a chat template, or when it is not wanted."""
    has_one = getattr(lm.tokenizer, "chat_template", None) is not None
    return lm.apply_chat_template if chat and has_one else None


def evaluate(
    loaded: LoadedModel,
    tasks: Sequence[str],
    *,
    adapter: Adapter | None = None,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    chat: bool = True,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Evaluate a model, edited or not, on lm-eval tasks.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        tasks: names of tasks, groups or tags.
        adapter: the edit to measure; None for the base model.
        include_path: folder of further task files.
        num_fewshot: shots in each prompt; None for each task's own number.
        limit: evaluate only the first documents of each task.
        chat: apply the tokenizer's chat template where it has one.
        batch_size: most sequences of one pass; None leaves it to us.

    Returns:
        lm-eval's results, with documents and answers under "samples" and the adapter's fingerprint under "config".

    Raises:
        UnknownName: no such task.
        TarotError: the adapter was tuned on a document that is evaluated, or does not fit the model; a task has fewer
            documents than shots are asked for.
    """
    if limit is not None and limit < 1:
        raise TarotError("a limit of at least 1 document", str(limit), "leave it out to evaluate all")
    selected = load_tasks(tasks, include_path)
    tuned_on = _tuning_keys(adapter)
    for task in selected["tasks"].values():
        check_disjoint(task, tuned_on)
        if num_fewshot is not None:
            task.set_config("num_fewshot", num_fewshot)
        elif task.config.num_fewshot is None:
            task.set_config("num_fewshot", 0)
        _check_shots(task)
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size or "auto")
    lm.reference, lm.adapter = loaded.reference, adapter
    templated = chat_template(lm, chat) is not None
    with adapter.applied(loaded.model) if adapter else nullcontext(), _quiet("lm_eval.api.task"):
        results = evaluator.evaluate(
            lm,
            selected,
            limit=limit,
            apply_chat_template=templated,
            fewshot_as_multiturn=True,
            # Our metrics have closed forms for their errors, or none; these rounds are for other tasks' (lm-eval's
            # default of 100,000 takes minutes for f1).
            bootstrap_iters=100,
        )
    # What lm-eval's own front door would add, without the seconds that it spends on describing the machine.
    results["config"] = {
        "model": "tarot",
        "model_args": {"pretrained": loaded.reference},
        **lm.get_model_info(),
        "batch_size": batch_size or "auto",
        "device": str(loaded.model.device),
        "limit": limit,
        "apply_chat_template": templated,
        "fewshot_seed": DEFAULT_OTHER_SEED,
    }
    results["versions_of"] = {name: version(name) for name in ("tarot-lm", "lm-eval", "transformers", "torch")}
    return results


def _check_shots(task: Task) -> None:
    shots, pool = task.config.num_fewshot, len(task.sampler.df) if hasattr(task, "sampler") else 0
    if not 0 <= shots <= pool:
        raise TarotError(f"0 to {pool} shots, the documents that {task.config.task} has for them", str(shots))


def _tuning_keys(adapter: Adapter | None) -> list[str]:
    samples = adapter.provenance.get("samples_drawn") if adapter else None
    if not isinstance(samples, list):
        return []
    return [sample["key"] for sample in samples if isinstance(sample, Mapping)]


def logged(results: Mapping[str, Any], task: str) -> list[Any]:
    """What lm-eval logged of a task's documents, each once: as the task's first filter leaves its answers."""
    documents: list[dict[str, Any]] = results["samples"][task]
    return [document for document in documents if document["filter"] == documents[0]["filter"]]


def metric(results: Mapping[str, Any], task: str, name: str) -> float:
    """One task's value of one metric, by the first filter that has it."""
    values = results["results"][task]
    found = [value for key, value in values.items() if key.split(",")[0] == name]
    if not found:
        raise TarotError(
            f"a metric of {task}", repr(name), f"it has {', '.join(sorted({k.split(',')[0] for k in values}))}"
        )
    return float(found[0])


def n_documents(results: Mapping[str, Any], task: str) -> int:
    """How many documents of a task were evaluated."""
    return int(results["n-samples"][task]["effective"])
