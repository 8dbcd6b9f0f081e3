"""Pairs and a causal model go in; perplexity and instruction-following difficulty come out."""
