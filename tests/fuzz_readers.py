"""Read files that were changed at random: every reader must accept them or raise one printable TarotError.

    python tests/fuzz_readers.py --rounds 100000

A round copies the valid files of one reader, changes one of them, and reads them as the commands do. Round n of a seed
always makes the same change. Any other exception than TarotError fails, and so does a round of more than 5 seconds of
processor time. Loading a model takes as long as 50 other rounds, so one round in 50 does that. `test_fuzz_readers.py`
runs the first rounds in the suite.
"""

import argparse
import hashlib
import json
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import torch
from checkpoint import CHOICE, byte_model, byte_tokenizer, save_checkpoint, write_gguf
from fabricated import render
from fuzz_changes import change
from fuzz_inputs import (
    ANSWERED,
    BENCH_RECIPE,
    DIVERGENCES,
    EFFECTS,
    LIMITED,
    PROMPTS_JSON,
    PROMPTS_TEXT,
    PROVENANCE,
    TEMPLATE,
    TRADE_OFF,
    TUNE_RECIPE,
    draw_sets,
)

from tarot._files.recipe_file import read_recipe
from tarot.cli.recipe import BenchRecipe, TuneRecipe, _option_value
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.edit.export.peft import from_peft, to_peft
from tarot.edit.gate import PromptGate
from tarot.edit.model_card import format_model_card
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import TarotError, printable
from tarot.evaluation.as_tuned import config_of, edit_settings, kept_limit
from tarot.evaluation.command import not_repeated
from tarot.evaluation.compare_rewards import reward_of
from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.regression import reference as gate
from tarot.evaluation.results import results_file
from tarot.evaluation.results import reward_comparison as reward_results
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.statistics.means import difference
from tarot.models.answer_log import AnswerLog
from tarot.models.chat import ChatRenderer
from tarot.models.load import load_model
from tarot.objectives.prompt_file import read_prompt_file
from tarot.objectives.rewards.registry import is_reward
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScoreLog, TextScores
from tarot.objectives.tasks.task_names import check_task_names, task_names_in
from tarot.report.figures.heads import angle_map
from tarot.report.figures.pictures import read_pictures
from tarot.report.figures.svg import write_svg
from tarot.report.rewards import front_rows
from tarot.report.side_effect_words import read_costs
from tarot.report.table import summary_rows
from tarot.search.algorithms.policy_gradient import DrawLog
from tarot.search.divergence_log import DIVERGENCES_FILE, DivergenceLog
from tarot.search.folder import TRIALS, read_curve
from tarot.search.pareto import pareto_front
from tarot.search.trials import Trial, TrialLog, best_of

LONGEST = 5.0  # seconds of processor time that one round may take
LOADED = 50  # one round in so many loads a model
RENDERED = 25  # one in so many accepted results is rendered as a page, which takes a second


class Hang(BaseException):
    """Raised in a round that takes too long; no reader may catch it."""


@dataclass(frozen=True)
class Reader:
    """Reader of valid files; `read` is called with their folder and a random number generator."""

    name: str
    files: Mapping[str, bytes]
    read: Callable[[Path, random.Random], object]


# Valid files and their readers ---------------------------------------------------------------------

model = cache(byte_model)


def _adapter() -> Adapter:
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    made = Adapter(angles, Edit.from_sites(model(), "heads", find_sites(model(), "heads", 0.5), ROTARY), PROVENANCE)
    return made.scaled(0.5) if made.provenance.get("parents") else made


def _gated() -> Adapter:
    gate = PromptGate(1, torch.linspace(-1.0, 1.0, model().config.hidden_size), -0.5)
    return replace(_adapter(), gate=gate, provenance={**PROVENANCE, **LIMITED})


def _read_adapter(folder: Path, rng: random.Random) -> object:
    if rng.random() < 0.5:  # read the changed weights instead of stopping at their digest
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest().encode()
        (folder / METADATA).write_bytes(re.sub(rb"[0-9a-f]{64}", digest, (folder / METADATA).read_bytes()))
    adapter = Adapter.from_pretrained(folder)
    adapter.scaled(0.5).save_pretrained(folder / "again")
    assert Adapter.from_pretrained(folder / "again").tasks == adapter.tasks
    format_model_card(json.loads((folder / "again" / METADATA).read_bytes()), "owner/name")
    edit_settings(adapter), not_repeated(adapter), kept_limit(adapter)
    if adapter.gate:
        with adapter.apply(model()):
            pass
    if is_reward(config_of(adapter).objective):
        reward_of(adapter, None)
    return adapter.find_sites(model())


def _read_trials(folder: Path, rng: random.Random) -> object:
    path = folder / TRIALS
    log = TrialLog.read(path)
    best_of(log.trials) if log.trials else None
    read_curve(folder, "adam")
    opened = TrialLog.open(path, SETTINGS, resume=True)
    if opened.trials:
        opened.append(replace(opened.trials[0], index=len(opened.trials)))
    return TrialLog.read(path)


def _read_outcomes(folder: Path, rng: random.Random) -> object:
    found = TextScoreLog.read(folder)
    return front_rows(found, pareto_front(found))


def _read_cells(folder: Path, rng: random.Random) -> object:
    found, compared = reward_results.load_results(folder / "cells.json")
    if rng.random() < 0.2:
        if found:
            summary_rows(found)
            gate.check_regressions([_cell()], found, 0.0)
        results_file.comparisons_to_json(found).encode()
    if rng.random() < 1 / RENDERED:
        render(found, rewards=compared)
    return found


def _read_peft(folder: Path, rng: random.Random) -> object:
    return from_peft(model(), folder)


def _read_pictures(folder: Path, rng: random.Random) -> object:
    found = read_pictures(folder)
    return render([_cell()], analyses=[found]) if rng.random() < 1 / RENDERED / 4 else found


def _read_template(folder: Path, rng: random.Random) -> object:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (folder / "chat_template.jinja").read_bytes().decode(errors="replace")
    messages = [{"role": role, "content": f"text of the {role}"} for role in ("system", "user", "assistant", "user")]
    return ChatRenderer(tokenizer, {})(messages)


def _read_task(folder: Path, rng: random.Random) -> object:
    names = task_names_in(folder)
    check_task_names(["own_choice"], folder)
    return names


def _read_recipes(folder: Path, rng: random.Random) -> object:
    return [
        {name: _option_value(name, value, False) for name, value in read_recipe(folder / file, schema).items()}
        for file, schema in (("tune.yml", TuneRecipe), ("bench.yml", BenchRecipe))
    ]


def _read_prompts(folder: Path, rng: random.Random) -> object:
    template = rng.choice((None, ChatRenderer(byte_tokenizer(), {})))
    return [read_prompt_file(folder / name, template) for name in ("prompts.txt", "prompts.jsonl")]


def _read_draws(folder: Path, rng: random.Random) -> object:
    log = DrawLog(folder)
    for draws in list(log.entries.values())[:1]:
        log.add(len(log.entries), draws)
    return DrawLog.read(folder)


def _read_divergences(folder: Path, rng: random.Random) -> object:
    log = DivergenceLog(folder, "0123456789abcdef")
    json.dumps(log.notes, allow_nan=False, ensure_ascii=False).encode()
    log.kl(torch.zeros(2), 0.02, lambda: 0.5)
    return DivergenceLog(folder, "0123456789abcdef").kl(torch.zeros(2), 0.02, lambda: 0.25)


def _read_answers(folder: Path, rng: random.Random) -> object:
    log = AnswerLog(folder / "answers.jsonl", "owner")
    found = [log.find(kind, arguments) for kind, (arguments, _) in ANSWERED.items()]
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    log.add_partial("loglikelihood_rolling", ("item 8",), -1.5)
    return AnswerLog(log.path, "owner").find("loglikelihood_rolling", ("item 8",))


def _read_effects(folder: Path, rng: random.Random) -> object:
    costs, figures = read_costs(folder), read_pictures(folder)
    return render([_cell()], analyses=[figures], costs=costs) if rng.random() < 1 / RENDERED / 4 else costs


def _read_checkpoint(folder: Path, rng: random.Random) -> object:
    loaded = load_model(str(folder))
    return loaded.model(**loaded.tokenizer("some text", return_tensors="pt"))


def _read_gguf(folder: Path, rng: random.Random) -> object:
    return load_model(str(folder / "model.gguf"))


def _cell() -> Comparison:
    gold, text = (0, 1, 2, 0, 1, 2), tuple(f"document {i}" for i in range(6))

    def arm(name: str, answers: tuple[int, ...]) -> Arm:
        written = tuple("wrote" if answer < 0 else "" for answer in answers)
        return Arm(name, 2, answers, answers, (0.5,) * 6, 1.5, written=written)

    return Comparison(
        model="folder/model",
        task="own_choice",
        num_fewshot=0,
        seed=0,
        samples=4,
        budget=9,
        search="adam",
        space="head",
        objective="log_probability",
        command="tarot compare",
        keys=tuple(f"{i:016x}" for i in range(6)),
        gold=gold,
        texts=text,
        arms=(arm("zero-shot", (0, 0, 0, 0, 0, 0)), arm("few-shot", (0, 1, -1, 1, 1, 1)), arm("edited", gold)),
        seconds=3.5,
        reference_seconds=0.5,
        layers=(0, 1),
        head_angles=((0.5, -0.25, 0.0), (0.1, 0.2, 0.3)),
        curves={"adam": (-3.5, -1.5, float("nan"))},
        versions={"torch": "2.13"},
        choices=((" no", " yes", " maybe"),) * 6,
        date="2026-11-27",
        machine="Linux",
        reference_times=(0.5, 0.6),
        n_angles=12,
        trade_off=((0.0, -3.5), (0.02, -1.5)),
        max_kl=0.02,
        held_out=HeldOut(tokens=512, kl=0.01, low=0.005, high=0.02, perplexity_ratio=1.01),
    )


def _scored() -> reward_results.RewardComparison:
    base = ScoredTexts(("a b", "b c", "c d"), (0.0, 0.5, 0.25), (-2.0, -2.5, -3.0))
    edited = ScoredTexts(("a a", "b b", "c c"), (1.0, 0.5, 0.75), (-2.5, -2.5, -3.5))
    trials = {i: TextScores(0.5 * i, -2.0 - i, 0.5, 0.1, refused=i == 2) for i in range(3)}
    return reward_results.RewardComparison(
        model="folder/model",
        task="openings",
        reward="sentiment:positive",
        seed=0,
        adapter="0123456789abcdef",
        prompts=("first", "second", "third"),
        base=base,
        edited=edited,
        gain=difference(base.rewards, edited.rewards, resamples=200),
        fluency_gain=difference(base.fluencies, edited.fluencies, resamples=200),
        outcomes=trials,
        front=tuple(pareto_front(trials)),
        command="tarot compare",
    )


SETTINGS = {"model": "folder/model", "budget": 9, "prompts": "0123456789abcdef"}


def _written(write: Callable[[Path], object]) -> dict[str, bytes]:
    """Return the files that a function writes into a folder."""
    with TemporaryDirectory(prefix="tarot-fuzz-") as folder:
        write(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def _write_trials(folder: Path) -> None:
    log = TrialLog.open(folder / TRIALS, SETTINGS, resume=False)
    for i in range(3):
        log.append(Trial(i, (0.5, 0.25, 0.75), -1.5 * i, "gradient" if i else "identity", 0.1, 0.2, (0.5, -0.5, 0.0)))
    log.append(Trial(3, (0.5, 0.25, 0.75), float("nan"), "gradient", 0.1, 0.2))


def _write_rewards(folder: Path) -> None:
    (folder / "cells.json").write_text(reward_results.rewards_to_json([_scored()]))


def _write_pictures(folder: Path) -> None:
    write_svg(folder / "heads.svg", angle_map("heads", ((0.5, -0.25), (0.1, 0.2)), (0, 1)))


def _write_answers(folder: Path) -> None:
    log = AnswerLog(folder / "answers.jsonl", "owner")
    for kind, (arguments, answer) in ANSWERED.items():
        log.add_partial(kind, arguments, answer)


def _write_effects(folder: Path) -> None:
    (folder / "effects.csv").write_bytes(EFFECTS)
    (folder / "tradeoff.csv").write_bytes(TRADE_OFF)
    write_svg(folder / "effects.svg", angle_map("heads", ((0.5, -0.25), (0.1, 0.2)), (0, 1)))


def _write_gguf(folder: Path) -> None:
    write_gguf(byte_model(layers=1), folder / "model.gguf")


READERS = (
    Reader("adapter", _written(lambda folder: _adapter().save_pretrained(folder)), _read_adapter),
    Reader(
        "composition",
        _written(lambda folder: _adapter().scaled(0.5).scaled(2.0).save_pretrained(folder)),
        _read_adapter,
    ),
    Reader("gated", _written(lambda folder: _gated().save_pretrained(folder)), _read_adapter),
    Reader("trials", _written(_write_trials), _read_trials),
    Reader("recipes", {"tune.yml": TUNE_RECIPE, "bench.yml": BENCH_RECIPE}, _read_recipes),
    Reader("prompts", {"prompts.txt": PROMPTS_TEXT, "prompts.jsonl": PROMPTS_JSON}, _read_prompts),
    Reader("draws", {DrawLog.file: draw_sets()}, _read_draws),
    Reader("divergences", {DIVERGENCES_FILE: DIVERGENCES}, _read_divergences),
    Reader("answers", _written(_write_answers), _read_answers),
    Reader("effects", _written(_write_effects), _read_effects),
    Reader(
        "outcomes",
        {"outcomes.json": json.dumps({str(i): asdict(each) for i, each in _scored().outcomes.items()}).encode()},
        _read_outcomes,
    ),
    Reader(
        "cells",
        {"cells.json": results_file.comparisons_to_json([_cell(), replace(_cell(), seed=1)]).encode()},
        _read_cells,
    ),
    Reader("rewards", _written(_write_rewards), _read_cells),
    Reader("peft", _written(lambda folder: to_peft(model(), _adapter(), folder, "folder/model")), _read_peft),
    Reader("pictures", _written(_write_pictures), _read_pictures),
    Reader("template", {"chat_template.jinja": TEMPLATE.encode()}, _read_template),
    Reader("task", {"choice.yaml": CHOICE.format(folder="folder").lstrip().encode()}, _read_task),
)
MODEL_READERS = (
    Reader("checkpoint", _written(lambda folder: save_checkpoint(folder, layers=1)), _read_checkpoint),
    Reader("gguf", _written(_write_gguf), _read_gguf),
)

# Rounds --------------------------------------------------------------------------------------------


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise Hang in this process after so many seconds of processor time."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(seed: int, number: int) -> tuple[str, str]:
    """Run one round: the reader's name, and `accepted`, `refused` or the text of a failure."""
    rng = random.Random(f"{seed} {number}")
    readers, turn = (MODEL_READERS, number // LOADED) if number % LOADED == LOADED - 1 else (READERS, number)
    reader = readers[turn % len(readers)]
    changed = rng.choice(sorted(reader.files))
    with TemporaryDirectory(prefix="tarot-fuzz-") as scratch:
        folder = Path(scratch)
        for name, content in reader.files.items():
            (folder / name).write_bytes(change(name, content, rng) if name == changed else content)
        try:
            with _limited(LONGEST):
                reader.read(folder, rng)
        except TarotError as error:
            message = str(error)
            if message != printable(message) or len(message) > 5000:
                return reader.name, f"round {number}: not one short line of printable text: {ascii(message)[:300]}"
            return reader.name, "refused"
        except Hang:
            return reader.name, f"round {number}: more than {LONGEST:g} seconds\n{traceback.format_exc(limit=-5)}"
        except Exception:
            return reader.name, f"round {number}: {traceback.format_exc(limit=-8)}"
    return reader.name, "accepted"


def main() -> int:
    """Run rounds, print every failure, and count the results of each reader."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, counts, failures = time.time(), Counter[tuple[str, str]](), 0
    for number in range(options.first, options.first + options.rounds):
        name, result = fuzz(options.seed, number)
        if result not in ("accepted", "refused"):
            failures += 1
            print(f"{name}, {result}", flush=True)
            result = "failed"
        counts[name, result] += 1
    for reader in READERS + MODEL_READERS:
        kinds = ", ".join(f"{counts[reader.name, kind]} {kind}" for kind in ("accepted", "refused", "failed"))
        print(f"{reader.name}: {kinds}")
    print(f"{options.rounds} rounds, {failures} failures, {time.time() - started:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
