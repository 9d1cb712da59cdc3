"""Which machines change hosts, where they could go, and whether the copy is worth it."""
