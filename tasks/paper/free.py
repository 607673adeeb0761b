"""Metric of freely written answers: exact match with one of the accepted spellings."""


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """Return `exact_match = [the text, without surrounding space and a final period, is an accepted spelling]`."""
    (text,) = results
    return {"exact_match": float(text.strip().removesuffix(".") in doc["choices"])}
