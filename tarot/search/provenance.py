"""Provenance of an adapter: how its search went, and the versions of the libraries."""

LIBRARIES = ("torch", "transformers", "lm-eval", "botorch", "tarot-lm")
