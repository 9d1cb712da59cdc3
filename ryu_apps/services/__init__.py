"""Which destination serves behind a virtual IP, whether it lives, and how connections stay where they are."""
