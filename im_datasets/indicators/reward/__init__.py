"""Pairs and a reward model go in; its scores come out."""
