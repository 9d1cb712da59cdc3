"""TRIES IT: topologies for `mn --custom`; each file stands alone and needs Mininet only."""
