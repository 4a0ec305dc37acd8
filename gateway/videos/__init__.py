"""Video jobs: their table, and what is done with it."""
