"""Methods that an edit has to beat."""
