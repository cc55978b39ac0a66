"""Joint draws of a posterior: how they are streamed, what ratings they give, and how they become ArviZ data."""
