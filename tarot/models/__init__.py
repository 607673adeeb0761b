"""Load models, score token sequences and serve edited models to lm-evaluation-harness."""
