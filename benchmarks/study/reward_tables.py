"""What the study of rewards has measured: one table for each model and reward."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.study.markdown import table
from benchmarks.study.records import Record, read_records
from benchmarks.study.rewards import ARMS, REWARDS

HERE = Path(__file__).parent
# Folders of the records below `rewards-records`; those of SmolLM2 lie at its top.
MODELS = {"smollm2": "", "gemma3": "gemma3", "qwen0.5b": "qwen0.5b"}
HEADER = (
    "model",
    "reward",
    "arm",
    "seed",
    "score",
    "gain",
    "fluency",
    "distinct-2",
    "repetition",
    "log-ratio",
    "spent",
)
ROOM = 0.4  # the goal for the mean gain, for which a reward of at most 1 must leave room


def rewards(folder: Path = HERE / "rewards-records") -> str:
    """Show every record: the reward of held-out texts, its gain with the 95% CI, and what became of the texts."""
    rows = []
    for model, reward, records in _settings(folder):
        name = f"`{reward}`"
        rows.append([model, name, "unedited", "", *_columns(records[0]["base"]), "", ""])
        rows += [
            [
                model,
                name,
                record["arm"],
                str(record["seed"]),
                *_columns(record["scores"], record["gain"]),
                f"{record['kl']:.3f}" if "kl" in record else "",
                str(record.get("spent", "")),
            ]
            for record in records
        ]
    return table(HEADER, rows)


def followed_gains(folder: Path = HERE / "rewards-records") -> dict[str, str]:
    """Return the policy gradient's mean gain over settings, seeds averaged first, and the number of settings.

    The settings are those whose unedited texts leave room for the goal, and all; `behind` are the seeds in which asking
    for it in words or choosing among four texts scored higher.
    """
    gains, roomy, behind, n_seeds = [], [], 0, 0
    for _, _, records in _settings(folder):
        followed = [record for record in records if record["arm"] == "policy-gradient"]
        if not followed:
            continue
        gains.append(fmean(record["gain"][0] for record in followed))
        if records[0]["base"]["reward"] <= 1 - ROOM:
            roomy.append(gains[-1])
        highest = max(record["scores"]["reward"] for record in records if record["arm"] in ("prompt", "best-of-4"))
        behind += sum(record["scores"]["reward"] < highest for record in followed)
        n_seeds += len(followed)
    return {
        "mean": f"{fmean(gains):+.3f}",
        "settings": str(len(gains)),
        "room": f"{fmean(roomy):+.3f}",
        "roomy": str(len(roomy)),
        "behind": str(behind),
        "runs": str(n_seeds),
    }


def _settings(folder: Path) -> list[tuple[str, str, list[Record]]]:
    """Return model, reward and records of each setting, arms and seeds in order."""
    settings = []
    for model, place in MODELS.items():
        for reward in REWARDS:
            found = read_records(folder / place / reward.replace(":", "-")).values()
            records = sorted(found, key=lambda record: (ARMS.index(record["arm"]), record["seed"]))
            if records:
                settings.append((model, reward, records))
    return settings


def _columns(scores: Mapping[str, float], gain: Sequence[float | None] = ()) -> list[str]:
    """Return score, gain, fluency, distinct-2 and repetition."""
    fluency, distinct, repetition = (f"{scores[name]:.3f}" for name in ("fluency", "distinct_2", "repetition"))
    return [f"{scores['reward']:.3f}", _signed(gain), fluency, distinct, repetition]


def _signed(gain: Sequence[float | None]) -> str:
    """Format a gain with its 95% CI; without any text that differs, the interval is infinite."""
    if not gain:
        return ""
    value, *ends = gain
    low, high = (math.inf if end is None else end for end in ends)
    return f"{value:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(high) else "")
