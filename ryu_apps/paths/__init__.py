"""Traffic between two switches split over several paths."""
