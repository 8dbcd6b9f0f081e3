"""A selection and its record go in; a folder that explains itself comes out."""
