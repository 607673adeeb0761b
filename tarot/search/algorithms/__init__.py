"""The searches: from the trials so far to the next point."""
