"""Metric of generated texts that needs no reward and no model; `tarot evaluate` adds the others."""


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """Return `words`, the number of words in the continuation."""
    (text,) = results
    return {"words": float(len(text.split()))}
