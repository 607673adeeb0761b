"""What an edit has to beat."""
