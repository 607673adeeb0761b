"""The cost of an evaluation: time and memory, comparable between machines."""
