"""Adapters on a model hub: a folder pushed with a card that is written from its provenance, and pulled again.

Where the hub is, and who asks, is huggingface_hub's to know: `HF_ENDPOINT`, `HF_TOKEN`, or `hf auth login`.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from tarot._files.strict_json import parse_json, read_file
from tarot.edit.provenance import validate_metadata, validate_provenance
from tarot.errors import TarotError, printable

README = "README.md"
DESCRIPTION = "tarot.json"
NOT_MEASURED = (
    "No gain on unseen documents is recorded here; the scores above are of the samples that it was tuned on. "
    "`tarot compare` measures it."
)


def push(repo_id: str, folder: Path, *, private: bool = False, measured: str = "") -> str:
    """Upload an adapter's folder in one commit, its card (written into the folder) included; the commit's address.

    TarotError, in one line, whatever the hub answers.
    """
    with _told(repo_id, "write"):
        validate_repo_id(repo_id)
        api = HfApi()
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        description = parse_json(read_file(folder / DESCRIPTION))
        validate_metadata(description)
        validate_provenance(description.get("provenance", {}))
        (folder / README).write_text(card(description, name, measured), encoding="utf-8")
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="tarot adapter").commit_url)


def pull(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """The folder on this machine with these files of a hub repository, and no others; TarotError as for `push`."""
    with _told(repo_id, "read"):
        validate_repo_id(repo_id)
        return Path(HfApi().snapshot_download(repo_id, revision=revision, allow_patterns=list(files)))


def card(description: Mapping[str, Any], repo_id: str, measured: str = "") -> str:
    """Write the README.md of an adapter: what it is, how to use it, how it was made, what it is not.

    Names from the file appear as text only: they form no Markdown, HTML, YAML or Python of their own.

    Args:
        description: what its `tarot.json` says.
        repo_id: the hub repository's name.
        measured: a paragraph of Markdown on its gain, if there is one.
    """
    edit, provenance = description["edit"], description["provenance"]
    base = str(provenance.get("model") or "REF")
    on_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", base) and not Path(base).exists()
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="tarot",
        tags=["tarot", "model-editing", "attention-heads"],
    )
    layers = ", ".join(map(str, edit["layers"]))
    rows = [
        ("base model", _code(base)),
        ("edit", f"{_inline(edit['rotation'])} on {_inline(edit['sites'])}, layers {layers}"),
        ("fingerprint", _code(description["fingerprint"])),
        *_made(provenance),
    ]
    table = "\n".join("| " + " | ".join(comparison.replace("|", r"\x7c") for comparison in row) + " |" for row in rows)
    return f"""---
{data.to_yaml()}
---

# {_inline(repo_id.split("/")[-1])}

An edit of {_code(base)} that rotates the outputs of its attention heads, found by
[tarot](https://arxiv.org/abs/2410.04277) on a few labelled samples. It has no weights of its own but angles.

## Use

```python
import tarot

model = tarot.load_model({_literal(base)})
tarot.Adapter.from_pretrained({_literal(repo_id)}).merge(model.model)
```

## How it was made

| | |
|---|---|
{table}

## Measured

{measured or NOT_MEASURED}

## Limits

- It fits this base model alone, and is refused by any other.
- It was chosen for one way of asking; other prompts, tasks and languages may get worse.
- `tarot.json` names the samples it was tuned on; `tarot evaluate` refuses to evaluate on them.
"""


def _made(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of a search, or of each of the parents, as rows of the card."""
    for parent in provenance.get("parents", ()):
        yield "made from", f"{_code(parent['fingerprint'])} at strength {parent['strength']:g}"
        yield from _made(parent["provenance"])
    named = {
        "task": "task",
        "samples": "labelled samples",
        "num_fewshot": "shots in each prompt",
        "budget": "budget, evaluations",
        "seed": "seed",
        "space": "space",
        "search": "search",
        "bound": "largest angle allowed, radians",
    }
    yield from ((title, _inline(provenance[name])) for name, title in named.items() if name in provenance)
    scores = provenance.get("scores")
    if isinstance(scores, Mapping) and all(isinstance(scores.get(name), float) for name in ("identity", "best")):
        measure = _inline(provenance.get("objective", "objective"))
        yield f"{measure} on the samples", f"unedited {scores['identity']:.4f}, edited {scores['best']:.4f}"


def _inline(value: object) -> str:
    """Markdown of a name or number: plain words as they are, everything else as code, which forms no markup."""
    text = str(value)
    plain = re.fullmatch(r"-?[A-Za-z0-9]+([ ._+-][A-Za-z0-9]+)*", text) and not text.lower().startswith("www.")
    return text if plain else _code(text)


def _code(text: str) -> str:
    """Markdown of a code span that holds the text, on one line."""
    line = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _literal(text: str) -> str:
    """Python string literal of the text, on one line and without backticks, which could end the block of code."""
    escaped = {"\\": r"\\", '"': r"\"", "`": r"\x60"}
    return '"' + "".join(printable(escaped.get(char, char)) for char in text) + '"'


@contextmanager
def _told(repo_id: str, to: str) -> Iterator[None]:
    """Whatever the hub or its client raises, in one line."""
    try:
        yield
    except HFValidationError as error:
        raise TarotError("a folder with an adapter, or a hub id", repr(repo_id), "as in owner/name") from error
    except LocalEntryNotFoundError as error:
        raise TarotError(f"to {to} the hub's {repo_id!r}", "no network and no copy here", "check both") from error
    except Exception as error:  # its class is the HTTP client's own, and huggingface_hub changed clients
        reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
        raise TarotError(f"to {to} the hub's {repo_id!r}", reason, "check its name, and hf auth login") from error
