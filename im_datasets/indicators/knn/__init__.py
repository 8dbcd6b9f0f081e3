"""Vectors of all rows go in; the distance to each row's k-th nearest other one comes out."""
