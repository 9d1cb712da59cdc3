"""What Prometheus is told by the processes of this room: loops that count, and what the database knows."""
