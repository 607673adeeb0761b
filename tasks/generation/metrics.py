"""What a continuation says of itself. What it is worth needs a reward and a model, and `tarot evaluate` adds it."""


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """`words`: how many the continuation has."""
    (text,) = results
    return {"words": float(len(text.split()))}
