"""Rules as data: one JSON file each, with the coefficients beside their source."""
