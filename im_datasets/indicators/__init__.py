"""The indicators: each a batch function from rows to columns of floats."""
