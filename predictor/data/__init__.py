"""What is known of each series, on a regular grid: read from the store, and shown to the models."""
