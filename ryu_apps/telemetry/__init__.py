"""From switches' counters and samples to rows: nothing lost, nothing counted twice, nothing that cannot be true."""
