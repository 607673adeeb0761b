"""What an evaluation costs: time and memory, comparable between machines."""
