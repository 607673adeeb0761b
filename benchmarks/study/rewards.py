"""Rewards on generated texts: `python -m benchmarks.study.rewards`.

Declared before it was measured: SmolLM2, the task `openings`, `sentiment:positive`, bound .3 for `bo` and `random` and
the default for the policy gradient, 20 samples, budget 120, a fluency floor of 10%, seeds 0 to 2; then the same with
`format:json`, on the task `records`, which was added for it. Arms: `prompt` asks for it in words, `best-of-4` keeps the
best of four sampled texts of the base, and the searches `policy-gradient`, `bo` and `random`. Changed after seeds 0 and
1 had been looked at: the budget is 240, and the policy gradient has one scale, new texts each step, and a way back from
refused edits. Declared next, before any of it was measured: `format:json` with the same settings for Gemma 3 270M and
Qwen2.5-Coder 0.5B, without `bo` and `random`; and `sentiment:positive` for Gemma 3. Declared last: `lora` and
`steering` (`benchmarks.study.reward_baselines`) with SmolLM2, seed 0 first. `sentiment:positive` for Qwen, seed 0,
was entered here only after it had run, with the same settings. The held-out documents are the first of the test split,
the same for every arm. Each pair of arm and seed is one small file, and a file that exists is not measured again.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.study.records import Record, measure_records
from benchmarks.study.reward_baselines import steer, train_lora
from benchmarks.study.run import fast_attention, parse_numbers, tune_in
from tarot.edit.adapter import Adapter
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.statistics.means import difference
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Scorer
from tarot.objectives.generated import score_texts
from tarot.objectives.policy import N_DRAWS, make_policy_objective
from tarot.objectives.rewards.fluency import make_fluency
from tarot.objectives.rewards.registry import make_reward
from tarot.objectives.rewards.text_scores import ScoredTexts
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import Sample, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.objectives.text_generation import TextGenerator
from tarot.search.config import TaRotConfig

MODEL, SEEDS, BUDGET = "wheel:smollm2-135m", (0, 1, 2), 240


class Asked(NamedTuple):
    """The task of a reward, a part of its prompts, and what the arm `prompt` says in its place."""

    task: str
    own: str
    asking: str


REWARDS = {
    "sentiment:positive": Asked("openings", "A film review:", "Write a positive review:"),
    "format:json": Asked(
        "records", "Write the facts as a JSON object", "Write only a JSON object, without any other text,"
    ),
}
SEARCHES: dict[str, dict[str, Any]] = {
    "policy-gradient": {"search": "policy-gradient"},
    "bo": {"search": "bo", "bound": 0.3},
    "random": {"search": "random", "space": "head", "bound": 0.3},
}
BASELINES: dict[str, Callable[[LoadedModel, TaRotConfig, int], BaselineEdit]] = {"lora": train_lora, "steering": steer}
ARMS = ("prompt", "best-of-4", *SEARCHES, *BASELINES)


class Study:
    """Measure arms on the same held-out documents.

    Args:
        loaded: the model.
        reward: name of the reward.
        n_documents: number of held-out documents.
        budget: evaluations of each search.
    """

    def __init__(self, loaded: LoadedModel, reward: str, n_documents: int, budget: int = BUDGET) -> None:
        self.loaded = loaded
        self.budget = budget
        self.name = reward
        self.lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        self.asked = REWARDS[reward]
        self.task = load_task(self.asked.task)
        template = get_chat_template(self.lm, True)
        self.documents = render_evaluation_documents(self.task, limit=n_documents, chat_template=template)
        self.fluency = make_fluency(self.lm)
        self.reward = make_reward(reward, self.fluency)
        self.base = self.score(self.prompts, self.write(self.prompts))

    @property
    def prompts(self) -> list[str]:
        """The prompts of the held-out documents."""
        return [prompt_of(document) for document in self.documents]

    def write(self, prompts: Sequence[str]) -> list[str]:
        """Return the model's texts as the task generates them."""
        return TextGenerator(self.lm, prompts, self.task.config.generation_kwargs).generate(seed=0)

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> ScoredTexts:
        """Score texts; call it while the model is unedited."""
        return score_texts(prompts, texts, self.reward, self.fluency)

    def prompted(self, seed: int) -> ScoredTexts:
        """Ask for it in words. Fluency is that of the text after the original prompt."""
        task, own, words = self.asked
        asking = [prompt.replace(own, words) for prompt in self.prompts]
        if asking == self.prompts:
            raise ValueError(f"{own!r} is not in the prompts of {task}")
        return self.score(self.prompts, self.write(asking))

    def best_of_four(self, seed: int) -> ScoredTexts:
        """Keep the text with the highest reward of four that the base samples for each document."""
        sites = find_sites(self.loaded.model, "heads", 1.0)
        policy = make_policy_objective(
            self.lm, self.task, self.documents, self.reward, sites=sites, rotation=ROTARY, batch_size=None
        )
        drawn = policy.sampler.sample(N_DRAWS, seed)
        texts = []
        for prompt, candidates in zip(self.prompts, drawn, strict=True):
            written = [candidate.text for candidate in candidates]
            rewards = list(self.reward([prompt] * len(written), written))
            texts.append(written[rewards.index(max(rewards))])
        return self.score(self.prompts, texts)

    def tuned(self, arm: str, seed: int, folder: Path) -> tuple[Adapter | BaselineEdit, ScoredTexts]:
        """Tune an edit, or make that of a baseline with the policy gradient's settings, and score its texts."""
        settings = SEARCHES.get(arm, SEARCHES["policy-gradient"])
        config = TaRotConfig(self.asked.task, objective=self.name, seed=seed, fluency_floor="10%", **settings)
        edit: Adapter | BaselineEdit
        if arm in BASELINES:
            with fast_attention(self.loaded):
                edit = BASELINES[arm](self.loaded, config, self.budget)
        else:
            edit, _ = tune_in(folder, self.loaded, config, self.budget)
        with edit.apply(self.loaded.model):
            texts = self.write(self.prompts)
        return edit, self.score(self.prompts, texts)

    def divergence(self, edit: Adapter | BaselineEdit, texts: Sequence[str]) -> float:
        """Return the mean log-ratio of edited to unedited model on the texts of the edited one, in nats a token."""
        requests = [self.fluency.request(*pair) for pair in zip(self.prompts, texts, strict=True)]
        scorer = Scorer(self.loaded.model, requests)
        with torch.no_grad():
            base = scorer.log_probabilities()[0].sum()
            with edit.apply(self.loaded.model):
                edited = Scorer(self.loaded.model, requests).log_probabilities()[0].sum()
        return float(edited - base) / sum(len(request.continuation) for request in requests)

    def measure(self, arm: str, seed: int, folder: Path) -> Record:
        """Return one record: the arm's scores, its gain with its 95% CI, and texts to read."""
        record: Record = {"arm": arm, "seed": seed, "reward": self.name, "documents": len(self.documents)}
        baselines: dict[str, Callable[[int], ScoredTexts]] = {"prompt": self.prompted, "best-of-4": self.best_of_four}
        if arm in baselines:
            scored = baselines[arm](seed)
        else:
            edit, scored = self.tuned(arm, seed, folder)
            record |= {"kl": self.divergence(edit, scored.texts), "spent": edit.provenance["spent"]}
            if arm in BASELINES:
                record["chosen"] = dict(edit.provenance)
        gain = difference(self.base.rewards, scored.rewards)
        return record | {
            "base": vars(self.base.summary),
            "scores": vars(scored.summary),
            # Without any text that differs the interval is infinite, which JSON cannot say.
            "gain": [value if math.isfinite(value) else None for value in (gain.value, gain.low, gain.high)],
            "texts": scored.texts[:5],
        }


def prompt_of(document: Sample) -> str:
    """Return the prompt of a document without answers."""
    return document.pairs[document.gold][0]


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the records and searches are kept")
    parser.add_argument("--reward", default="sentiment:positive", choices=REWARDS)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--documents", type=int, default=160)
    parser.add_argument("--arms", default=",".join(ARMS), help="only these, separated by commas")
    parser.add_argument("--seeds", type=parse_numbers, default=SEEDS, help="only these, separated by commas")
    parser.add_argument("--budget", type=int, default=BUDGET)
    arguments = parser.parse_args()
    folder = arguments.folder / arguments.reward.replace(":", "-")
    study = Study(load_model(arguments.model), arguments.reward, arguments.documents, arguments.budget)
    pairs = product(arguments.seeds, arguments.arms.split(","))
    measure_records(folder, folder, {f"{arm}-{seed}": partial(study.measure, arm, seed, folder) for seed, arm in pairs})


if __name__ == "__main__":
    main()
