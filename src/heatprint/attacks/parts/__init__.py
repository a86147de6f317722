"""What several attacks are made of: norm balls, decision boundaries, rounding to 8 bits, evolution, losses."""
