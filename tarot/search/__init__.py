"""Search spaces, optimisers, the resumable loop, and `tune`."""
