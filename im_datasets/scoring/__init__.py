"""A dataset and a rule go in; the scored dataset and its record come out."""
