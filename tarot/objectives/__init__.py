"""From labelled samples and angles to one number."""
