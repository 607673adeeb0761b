"""Generate text with a model: sampled, streamed, or what it writes by itself."""
