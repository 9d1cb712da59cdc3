"""One strategy a file: each proposes steps, and says what it refuses and why."""
