"""Spectral relevance analysis, from a graph of heat maps to the strategies in them."""
