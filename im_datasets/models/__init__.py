"""A model's id and revision go in; the loaded model comes out, and values of items, each computed once."""
