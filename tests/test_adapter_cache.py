"""The cache of tuned adapters: its keys, and how damaged and unfinished entries are repaired."""

from dataclasses import replace
from pathlib import Path

import pytest
from after_trial import AfterTrial
from checkpoint import byte_model, byte_tokenizer, write_tasks

from tarot._files.lock import hold_lock
from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.errors import TarotError
from tarot.evaluation.grid import adapter_cache as cache
from tarot.models.loaded_model import LoadedModel
from tarot.objectives import retained
from tarot.objectives.rewards.text_scores import TextScoreLog
from tarot.search.algorithms.policy_gradient import DrawLog
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.folder import LOCK, TRIALS


@pytest.fixture(scope="module")
def cache_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with task files."""
    folder = tmp_path_factory.mktemp("cache")
    write_tasks(folder / "tasks")
    return folder


@pytest.fixture
def tuned(cache_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that tunes with a cache; it returns the adapter, its folder, notes and the trials evaluated."""
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    config = TaRotConfig("own_choice", num_samples=6, space="head", search="random")
    evaluated: list[int] = []
    tune = cache.tune

    def counting(*args: object, callbacks: list[Callback], **options: object) -> Adapter:
        count = AfterTrial(lambda trial, result: evaluated.append(trial.index))
        return tune(*args, callbacks=[count, *callbacks], **options)

    monkeypatch.setattr(cache, "tune", counting)

    def run(
        change: dict[str, object] | None = None, model: LoadedModel = loaded
    ) -> tuple[Adapter, Path, list[str], list[int]]:
        notes: list[str] = []
        evaluated.clear()
        changed = replace(config, **(change or {}))
        adapter, folder = cache.tune_cached(
            model, changed, tmp_path / "cache", budget=4, include_path=str(cache_tasks / "tasks"), notify=notes.append
        )
        return adapter, folder, notes, [*evaluated]

    return run


def test_what_determines_an_adapter_is_its_key(tuned) -> None:
    first, folder, notes, evaluated = tuned()
    assert (notes, evaluated) == ([], [0, 1, 2, 3])
    again, same, notes, evaluated = tuned()
    assert (again.fingerprint, same, notes, evaluated) == (first.fingerprint, folder, [], [])
    assert len({folder, *(tuned(change)[1] for change in ({"seed": 1}, {"num_fewshot": 2}, {"space": "full"}))}) == 4
    model = byte_model()
    model.model.layers[3].mlp.down_proj.weight[0, 0] += 1  # another model of the same name
    assert tuned(model=LoadedModel("bytes", model, byte_tokenizer()))[1] != folder
    assert tuned(model=LoadedModel("bytes", byte_model(), byte_tokenizer(chat=False)))[1] != folder


def test_retained_prompts_are_part_of_the_key(
    cache_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, include_path = LoadedModel("bytes", byte_model(), byte_tokenizer()), str(cache_tasks / "tasks")

    def name(**settings: object) -> str:
        return cache.entry_name(loaded, TaRotConfig("own_choice", num_samples=6, **settings), 4, include_path)

    prompts = tmp_path / "my.txt"
    prompts.write_text("Is it day?\n")
    settings: list[dict[str, object]] = [
        {},
        {"max_kl": None},
        {"retain": (str(prompts),)},
        {"retain": ("synth_color",)},
    ]
    before = [name(**each) for each in settings]
    assert len(set(before)) == len(settings) and before == [name(**each) for each in settings]
    prompts.write_text("Is it night?\n")
    assert [name(**each) for each in settings][2] != before[2]
    assert [name(**each) for each in settings][:2] == before[:2]
    monkeypatch.setattr(retained, "bundled_prompts", lambda template: ["Another prompt"])
    after = [name(**each) for each in settings]
    assert after[1] == before[1] and all(after[i] != before[i] for i in (0, 2, 3))


def test_all_samples_that_are_drawn_are_part_of_the_key(cache_tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy gradient draws twice as many as it follows."""
    loaded, drawn = LoadedModel("bytes", byte_model(), byte_tokenizer()), []
    draw = cache.draw_samples
    monkeypatch.setattr(cache, "draw_samples", lambda task, n, **rest: drawn.append(n) or draw(task, n, **rest))
    for reward in ("log_probability", "length:short"):
        config = TaRotConfig("own_choice", num_samples=3, objective=reward)
        cache.entry_name(loaded, config, 4, str(cache_tasks / "tasks"))
    assert drawn == [3, 6]


@pytest.mark.parametrize(
    ("names", "damaged"),
    [
        *(([METADATA], damaged) for damaged in (b"", b"{}", b'{"format": 99}', b"\xff" * 40, None)),
        *(([WEIGHTS], damaged) for damaged in (b"\xff" * 40, None)),
        ([METADATA, WEIGHTS], None),
    ],
)
def test_a_damaged_adapter_is_written_again_from_its_trials(tuned, names: list[str], damaged: bytes | None) -> None:
    first, folder, _, _ = tuned()
    for name in names:
        (folder / name).unlink()
        if damaged is not None:
            (folder / name).write_bytes(damaged)
    again, same, messages, evaluated = tuned()
    assert (again.fingerprint, same, evaluated) == (first.fingerprint, folder, [])
    assert messages[-1] == f"resumed the search in {folder} after 4 trials"
    assert Adapter.from_pretrained(folder).fingerprint == first.fingerprint and tuned()[2:] == ([], [])


def test_trials_before_a_damaged_line_are_kept(tuned) -> None:
    first, folder, _, _ = tuned()
    lines = (folder / TRIALS).read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], b'{"index": 2\n', *lines[4:]])
    (folder / TRIALS).write_bytes(damaged)
    again, _, messages, evaluated = tuned()
    assert (again.fingerprint, evaluated) == (first.fingerprint, [2, 3])
    assert messages[0].startswith(f"kept the intact trials in {folder / TRIALS}")
    assert (folder / f"{TRIALS}.damaged").read_bytes() == damaged


def test_an_entry_without_trials_is_renamed(tuned) -> None:
    first, folder, _, _ = tuned()
    content = (folder / TRIALS).read_bytes()
    (folder / TRIALS).write_bytes(content[:20])
    again, same, messages, evaluated = tuned()
    assert (again.fingerprint, same, evaluated) == (first.fingerprint, folder, [0, 1, 2, 3])
    assert len(messages) == 1 and messages[0].startswith("renamed a damaged cache entry to ")
    assert (folder.with_name(f"{folder.name}.damaged-1") / TRIALS).read_bytes() == content[:20]


@pytest.mark.parametrize("name", [TextScoreLog.file, DrawLog.file])
def test_a_damaged_file_beside_the_trials_is_renamed(tuned, name: str) -> None:
    first, folder, _, _ = tuned()
    (folder / METADATA).unlink()
    (folder / name).write_text("[")
    again, same, messages, evaluated = tuned()
    assert (again.fingerprint, same, evaluated) == (first.fingerprint, folder, [])
    assert messages[0].startswith(f"renamed {folder / name} to {name}.damaged: ")
    assert (folder / f"{name}.damaged").read_text() == "["


def test_an_entry_in_use_is_left_alone(tuned) -> None:
    _, folder, _, _ = tuned()
    (folder / METADATA).write_bytes(b"")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with hold_lock(folder / LOCK), pytest.raises(TarotError, match="Another process"):
        tuned()
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_a_search_that_died_goes_on(tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    first, folder, _, _ = tuned()
    lines = (folder / TRIALS).read_bytes().splitlines(keepends=True)
    for left, resumed, made in (([*lines[:3], b'{"ind'], 2, [2, 3]), (lines, 4, []), (lines[:1], 0, [0, 1, 2, 3])):
        (folder / METADATA).unlink()
        (folder / TRIALS).write_bytes(b"".join(left))
        again, _, notes, evaluated = tuned()
        assert again.fingerprint == first.fingerprint
        assert evaluated == made
        assert notes == ([f"resumed the search in {folder} after {resumed} trials"] if resumed else [])


def test_ctrl_c_stops_the_run_and_keeps_the_trials(tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(message: str, index: int, *_: object) -> None:
        if index == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.logger, "info", stop)
        with pytest.raises(KeyboardInterrupt):
            tuned()
    _, folder, notes, evaluated = tuned()
    assert evaluated == [3] and "after 3 trials" in notes[0]
    assert not Adapter.from_pretrained(folder).provenance["interrupted"]


def test_a_cache_that_cannot_be_written(cache_tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    config = TaRotConfig("own_choice", num_samples=6, space="head")
    for folder, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "deep", "Not a directory")):
        with pytest.raises(TarotError, match=rf"{folder} cannot be written: {reason}"):
            cache.tune_cached(loaded, config, folder, budget=3, include_path=str(cache_tasks / "tasks"), notify=print)
