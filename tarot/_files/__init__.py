"""Files that are written whole or not at all, and strict reading of JSON."""
