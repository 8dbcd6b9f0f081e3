"""Raw rows go in; (instruction, response) pairs come out, or the reason why a row has none."""
