"""Score continuations fast: shared prefixes, batches of like length, frozen layers."""
