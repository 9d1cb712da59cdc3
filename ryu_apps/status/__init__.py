"""What became of it all, told to the database: once, and again when it has changed."""
