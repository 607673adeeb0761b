"""Tasks of lm-eval as prompts: loading, documents, shots, labelled samples and splits."""
