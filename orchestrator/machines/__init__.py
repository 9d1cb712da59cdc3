"""What one machine needs and gets: CPU and memory, measured, foreseen, and the ways to give it more."""
