"""Effects of an edit inside the model and elsewhere: numbers only, no pictures."""
