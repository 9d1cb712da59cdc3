"""NOT SHIPPED: what tries and measures forepath - the lab of real switches and machines, benches, page writers."""
