"""Write an edit in the form that other tools load."""
