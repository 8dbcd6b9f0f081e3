"""Columns of indicators go in; the predicted log loss comes out."""
