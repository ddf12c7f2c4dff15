"""One file a view; each observes the state and knows no other view."""
