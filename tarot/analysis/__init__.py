"""What an edit changes inside the model and elsewhere: numbers only, no pictures."""
