"""Pairs and some examples of a job go in; how near each pair lies to these comes out."""
