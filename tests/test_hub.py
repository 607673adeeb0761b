"""Adapters on the hub, over HTTP to a local server: pushed, pulled, refused; and their model card."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoint import byte_model
from fabricated import fabricated
from hub_endpoint import Hub, run_hub
from huggingface_hub import HfApi, ModelCard, constants
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tarot.edit.adapter import Adapter, Edit, _comparisons
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.edit.hub import README
from tarot.edit.measurement import Measurement
from tarot.edit.model_card import WHEELS, format_model_card
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import InvalidValueError, MissingFileError, TarotError
from tarot.models.formats.wheels import wheel_references

PROVENANCE = {
    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "task": "synth_color",
    "num_samples": 20,
    "num_fewshot": 0,
    "budget": 60,
    "seed": 3,
    "objective": "log_probability",
    "scores": {"identity": -3.25, "best": -0.5},
}


def an_adapter(**provenance: object) -> Adapter:
    model = byte_model()
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return Adapter(angles, Edit.from_sites(model, "heads", find_sites(model, "heads", 0.5), ROTARY), provenance)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with run_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


def test_a_pushed_adapter_is_pulled(hub: Hub) -> None:
    adapter = an_adapter(**PROVENANCE)
    address = adapter.push_to_hub("me/color", private=True)
    assert address.startswith(f"{hub.address}/me/color/commit/") and hub.private == {"me/color": True}
    files = hub.repos["me/color"][-1]
    assert files.keys() == {METADATA, WEIGHTS, README} and len(hub.repos["me/color"]) == 2
    pulled = Adapter.from_pretrained("me/color")
    assert torch.equal(pulled.angles, adapter.angles) and pulled == adapter
    assert not any(README in request for request in hub.requests if "resolve" in request)


def test_old_revisions_are_kept(hub: Hub) -> None:
    first, second = an_adapter(seed=0), an_adapter(seed=0).scaled(0.5)
    old = first.push_to_hub("me/color").rpartition("/")[2]
    second.push_to_hub("me/color")
    assert Adapter.from_pretrained("me/color").fingerprint == second.fingerprint
    assert Adapter.from_pretrained("me/color", revision=old).fingerprint == first.fingerprint


def test_a_name_without_an_owner_belongs_to_the_user(hub: Hub) -> None:
    an_adapter().push_to_hub("color")
    assert hub.repos.keys() == {"me/color"}
    assert b'from_pretrained("me/color")' in hub.repos["me/color"][-1][README]


def test_a_folder_is_read_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    an_adapter().save_pretrained(tmp_path / "adapter")
    assert Adapter.from_pretrained(tmp_path / "adapter").fingerprint == an_adapter().fingerprint
    assert hub.requests == []


def test_a_refusal_of_the_hub_is_one_line(hub: Hub) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder 'me/nothing'.* the hub's repository .*404") as error:
        Adapter.from_pretrained("me/nothing")
    assert isinstance(error.value, TarotError)
    assert "\n" not in str(error.value)
    hub.repos["me/empty"] = [{"config.json": b"{}"}]
    with pytest.raises(TarotError, match="is not the folder of an adapter"):
        Adapter.from_pretrained("me/empty")


@pytest.mark.parametrize("reference", ["no/such/folder", "./folder", "~/folder", "a b", "owner/name/"])
def test_a_reference_that_is_neither_a_folder_nor_a_hub_id(reference: str) -> None:
    with pytest.raises(MissingFileError, match=r"neither a folder that exists nor a hub id"):
        Adapter.from_pretrained(reference)
    with pytest.raises(InvalidValueError, match=r"not a hub id"):
        an_adapter().push_to_hub(reference)


def test_a_path_is_never_read_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no folder"):
        Adapter.from_pretrained(Path("me/color"))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidValueError, match="is a file"):
        Adapter.from_pretrained(str(tmp_path / "file"))
    assert hub.requests == []


def test_without_a_network_the_cache_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    an_adapter().push_to_hub("me/color")
    Adapter.from_pretrained("me/color")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Adapter.from_pretrained("me/color").fingerprint == an_adapter().fingerprint
    with pytest.raises(MissingFileError, match=r"no folder 'me/other'.* no network"):
        Adapter.from_pretrained("me/other")


MEASURED = Measurement(
    "synth_color",
    "greedy_f1",
    "weighted F1 of the greedy answer",
    300,
    (("zero-shot", 0, 0.1), ("edited", 20, 0.45678), ("base", None, 0.2)),
    "edited",
    (0.35678, 0.3, 0.4),
    "tarot tune --model m && tarot compare",
    "f" * 16,
    differences={"zero-shot": (0.35678, 0.3, 0.4)},
)


def write_card(tmp_path: Path, adapter: Adapter, *measured: Measurement, license: str | None = None) -> str:
    adapter.save_pretrained(tmp_path)
    return format_model_card(json.loads((tmp_path / METADATA).read_text()), "me/color", measured, license)


def test_the_card_describes_the_edit_and_its_search(tmp_path: Path) -> None:
    text = write_card(tmp_path, an_adapter(**PROVENANCE))
    header = yaml.safe_load(text.split("---")[1])
    assert (header["base_model"], header["library_name"]) == (PROVENANCE["model"], "tarot")
    for line in (
        "# color",
        "| base model | `HuggingFaceTB/SmolLM2-135M-Instruct` |",
        "| edit | rotary on heads, layers 0-1 |",
        "| task | synth_color |",
        "| labelled samples | 20 |",
        "| budget, evaluations | 60 |",
        "| seed | 3 |",
        "| log_probability on the samples | unedited -3.2500, edited -0.5000 |",
        'model, tokenizer = tarot.load_model("HuggingFaceTB/SmolLM2-135M-Instruct")',
        'tarot.Adapter.from_pretrained("me/color").merge(model)',
    ):
        assert line in text.splitlines()
    assert "rotates the outputs of its attention heads" in text and "attention-heads" in header["tags"]
    assert "No gain on held-out documents is recorded here" in text
    measured = write_card(tmp_path, an_adapter(**PROVENANCE), MEASURED)
    assert "gain +0.357 over the unedited model, 95% CI [+0.300, +0.400]" in measured and "No gain" not in measured
    for line in (
        "| zero-shot | 0 | 0.100 | +0.357 [+0.300, +0.400] |",
        "| edited | 20 | 0.457 |  |",
        "| base |  | 0.200 |  |",
        f"    {MEASURED.command}",
    ):
        assert line in measured.splitlines()


def test_the_hub_reads_the_metadata(tmp_path: Path) -> None:
    """By its own classes: licence, base model, tags, and the results as `model-index`."""
    other = replace(MEASURED, metric="acc", title="accuracy", task="synth_size")
    data = ModelCard(write_card(tmp_path, an_adapter(**PROVENANCE), MEASURED, other, license="apache-2.0")).data
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", PROVENANCE["model"], "tarot")
    assert "model-editing" in data.tags and data.model_name == "color"
    read = [(each.dataset_type, each.metric_type, each.metric_name, each.metric_value) for each in data.eval_results]
    assert read == [
        ("synth_color", "f1", MEASURED.title, 0.4568),
        ("synth_size", "accuracy", "accuracy", 0.4568),
    ]


@pytest.mark.parametrize("reference", sorted(WHEELS))
def test_a_wheel_has_the_base_model_and_licence_of_its_original(hub: Hub, reference: str) -> None:
    assert reference in wheel_references()
    header = pushed_header(hub, an_adapter(**{**PROVENANCE, "model": reference}))
    assert (header["base_model"], header["license"]) == WHEELS[reference]


def test_an_adapter_chooses_no_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model that it names is not looked up, so the licence is the one that the user gives, or none."""
    base = str(PROVENANCE["model"])
    hub.repos[base] = [{"README.md": b"---\nlicense: openrail\n---\n"}]
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: pytest.fail("the base model was looked up"))
    assert "license" not in pushed_header(hub, an_adapter(**PROVENANCE))
    assert pushed_header(hub, an_adapter(**PROVENANCE), license="mit")["license"] == "mit"


def pushed_header(hub: Hub, adapter: Adapter, **options: Any) -> Any:
    adapter.push_to_hub("me/color", **options)
    return yaml.safe_load(hub.repos["me/color"][-1][README].decode().split("---")[1])


def test_results_are_pushed(hub: Hub) -> None:
    adapter = an_adapter(**PROVENANCE)
    comparison = fabricated(adapter=adapter.fingerprint)
    header = pushed_header(hub, adapter, results=[comparison])
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(comparison.score(), 4)
    with pytest.raises(InvalidValueError, match="another adapter"):
        adapter.push_to_hub("me/color", results=[fabricated()])
    with pytest.raises(InvalidValueError, match="another adapter"):
        adapter.push_to_hub("me/color", results=fabricated())
    for results in (["results.json"], "results.json", 123):
        with pytest.raises(InvalidValueError, match=r"results must be comparisons, not .*load_comparisons"):
            unwrap(_comparisons)(results)  # without the check of types, which only tests have


@pytest.mark.parametrize("model", ["wheel:qwen2.5-coder-0.5b", "./folder", "models/x.gguf", "/a/b", None])
def test_only_a_hub_model_is_linked(tmp_path: Path, model: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.gguf").touch()
    text = write_card(tmp_path, an_adapter(**({"model": model} if model else {})))
    assert "base_model" not in yaml.safe_load(text.split("---")[1])
    assert f'tarot.load_model("{model or "REF"}")' in text


def test_the_card_of_a_composition_names_its_parents(tmp_path: Path) -> None:
    adapter = an_adapter(**PROVENANCE)
    text = write_card(tmp_path, adapter.scaled(0.5))
    assert f"| made from | `{adapter.fingerprint}` at strength 0.5 |\n| task | synth_color |" in text


@pytest.mark.parametrize("drawn", [[], [{"key": "0"}]], ids=["function", "samples"])
def test_the_card_names_samples_only_if_there_are_any(tmp_path: Path, drawn: list[object]) -> None:
    text = write_card(tmp_path, an_adapter(**{**PROVENANCE, "samples_drawn": drawn}))
    assert ("| labelled samples |" in text) == (" on the samples |" in text) == bool(drawn)


hostile = st.lists(
    st.sampled_from(
        [
            *(
                "a",
                "/",
                "b",
                " ",
                "`",
                "``",
                '"',
                "'",
                "\\",
                "\n",
                "\r",
                "---",
                "# x",
                "|",
                "<b>",
                "</code>",
                "*",
                "__",
                "[",
            ),
            *(
                "](x)",
                "![",
                "http://x",
                "www.x.y",
                "@user",
                "&lt;",
                "{{",
                "\x1b[2J",
                "\u202e",
                "\u2028",
                "~~~",
                "1.",
                "- ",
            ),
        ]
    ),
    min_size=1,
    max_size=8,
).map("".join)


@given(hostile, hostile)
def test_names_form_no_markup_in_the_card(model: str, task: str) -> None:
    edit = {"rotation": task, "sites": model, "layers": [0]}
    parents = [{"fingerprint": task, "strength": 0.5, "provenance": {"task": model}}]
    made = {"model": model, "task": task, "space": model, "parents": parents, "objective": task}
    scores = {"scores": {"identity": -1.5, "best": -0.5}}
    measured = Measurement(task, model, task, 3, ((model, 0, 0.5),), model, (0.1, 0.0, 0.2), f"tarot {model}", task)
    metadata = {"edit": edit, "fingerprint": task, "provenance": {**made, **scores}}
    text = format_model_card(metadata, f"owner/{task}", [measured], task)
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert set(yaml.safe_load(front)) <= {"base_model", "library_name", "license", "model-index", "tags"}
    plain = format_model_card(
        {"edit": {**edit, "rotation": "a", "sites": "a"}, "fingerprint": "a", "provenance": {}},
        "owner/a",
        [MEASURED],
    )
    tokens = MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(body)
    kinds = [token.type for token in tokens if "heading" in token.type or token.type in ("fence", "html_block", "hr")]
    assert kinds == [
        token.type
        for token in MarkdownIt("commonmark").enable("table").parse(plain.split("\n---\n", 1)[1])
        if "heading" in token.type or token.type in ("fence", "html_block", "hr")
    ]
    spans = [child for token in tokens for child in token.children or ()]
    assert {span.type for span in spans} <= {"text", "code_inline", "softbreak", "link_open", "link_close"}
    assert [span.attrs["href"] for span in spans if span.type == "link_open"] == ["https://arxiv.org/abs/2410.04277"]
    assert all(re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u202e\u2028]*", line) for line in text.split("\n"))
    snippet = next(token.content for token in tokens if token.type == "fence")
    strings = [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
    assert strings == [model, f"owner/{task}"] or strings == [f"owner/{task}", model]
    cells = [line.count("|") - line.count(r"\|") for line in body.splitlines() if line.startswith("| ")]
    assert cells and set(cells) == {3, 5} and cells.count(5) == 2


def test_the_card_says_what_the_edit_changes(tmp_path: Path) -> None:
    adapter = an_adapter(**PROVENANCE)
    text = write_card(tmp_path, replace(adapter, edit=replace(adapter.edit, sites="mlp", rotation="scale")))
    assert "scales the outputs of its MLPs" in text and "attention-heads" not in text


def test_an_invalid_provenance_is_not_pushed(hub: Hub) -> None:
    with pytest.raises(TarotError, match=r"budget: Input should be a valid integer"):
        an_adapter(budget="many").push_to_hub("me/color")
    assert not hub.repos
