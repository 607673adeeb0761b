"""What an edit costs elsewhere, from the tables of `tarot effects`."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.report.csv_file import write_csv
from tarot.report.side_effect_words import Costs, costs_of, describe_costs, describe_other_adapters, read_costs

EFFECTS = ("adapter", "fingerprint", "task", "tuned_on", "base", "edited", "change", "low", "high", "p", "documents")
TRADE_OFF = ("adapter", "fingerprint", "strength", "kl_nats", "base_perplexity", "perplexity")


def task(name: str, change: float, *, own: bool = False, adapter: str = "mine") -> tuple[object, ...]:
    return adapter, f"f{adapter}", name, own, 0.5, 0.5 + change, change, change - 0.05, change + 0.05, 0.5, 40


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=6))
def test_losses_and_gains_without_zero_are_counted(
    tmp_path_factory: pytest.TempPathFactory, changes: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("effects")
    rows = [task("own", -0.5, own=True), *(task(f"task_{i}", change) for i, change in enumerate(changes))]
    write_csv(folder / "effects.csv", EFFECTS, rows)
    (costs,) = read_costs(folder)
    sentence = costs.tasks
    written = [float(f"{change + 0.05:.6g}") for change in changes]
    fell = sum(high < 0 for high in written)
    rose = sum(float(f"{change - 0.05:.6g}") > 0 for change in changes)
    start = f"Of {len(changes)} other tasks, the score fell in {fell} and rose in {rose} "
    assert sentence.startswith(start)
    unclear = len(changes) - fell - rose
    assert (f"; in {unclear} it may have changed either way" in sentence) == bool(unclear)
    assert ("most in task_" in sentence) == bool(fell)
    if fell:
        assert f"most in task_{changes.index(min(changes))}: " in sentence


def test_neutral_text_at_full_strength(tmp_path: Path) -> None:
    rows = [("mine", "f", 0.5, 0.01, 10.0, 11.0), ("mine", "f", 1.0, 0.2, 10.0, 12.5)]
    write_csv(tmp_path / "tradeoff.csv", TRADE_OFF, rows)
    text = "On neutral text the perplexity is 1.25 times the base's, and the KL 0.200 nats a token."
    assert read_costs(tmp_path) == [Costs("mine", "f", "", text)]


FINGERPRINTS = st.sampled_from(["1f", "2f", ""])
COSTS = st.lists(st.builds(Costs, st.sampled_from(["mine", "yours"]), FINGERPRINTS, st.sampled_from(["It fell.", ""])))


@given(COSTS, st.sets(st.sampled_from(["1f", "2f"])))
def test_costs_are_those_of_the_adapter_and_others_are_called_so(costs: list[Costs], compared: set[str]) -> None:
    for fingerprint in compared:
        own = [each.tasks for each in costs if each.fingerprint == fingerprint and each.tasks]
        assert costs_of(costs, fingerprint).tasks == " ".join(own)
    sentences = describe_costs(costs, compared)
    others = [each for each in costs if each.tasks and compared and each.fingerprint not in compared]
    assert len(sentences) == sum(each.tasks != "" for each in costs)
    assert sum("(not compared on this page)" in sentence for sentence in sentences) == len(others)
    belong = not costs or not compared or any(each.fingerprint in compared for each in costs)
    warning = describe_other_adapters(costs, compared)
    assert (warning == "") == belong
    assert warning == "" or all(each.adapter in warning for each in costs)


def test_several_adapters_are_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "effects.csv", EFFECTS, [task("a", 0.0), task("a", 0.0, adapter="other")])
    sentences = describe_costs(read_costs(tmp_path), ["fmine", "fother"])
    assert [sentence.partition(":")[0] for sentence in sentences] == ["mine", "other"]


def test_a_folder_without_the_tables_has_no_costs(tmp_path: Path) -> None:
    assert read_costs(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "adapter\nmine\n",
        "adapter,task,tuned_on,change,low,high\nmine,a,False,0,0,0\n",
        ",".join(EFFECTS) + "\nmine,f,a,False,0,0,x,0,0,0,0\n",
        "\x00\xff",
        'a,"b',
    ],
)
def test_damaged_tables(tmp_path: Path, content: str) -> None:
    (tmp_path / "effects.csv").write_bytes(content.encode("latin-1"))
    if content == "":
        assert read_costs(tmp_path) == []
        return
    with pytest.raises(TarotError, match=r"effects\.csv"):
        read_costs(tmp_path)
