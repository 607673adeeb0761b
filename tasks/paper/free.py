"""How a written answer is judged: word for word."""


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """`exact_match = [the text, stripped of space and a final period, is one of the answer's ways to be written]`."""
    (text,) = results
    return {"exact_match": float(text.strip().removesuffix(".") in doc["choices"])}
