"""Nothing of a dataset goes in; what all stages stand on comes out: errors, whole files, bounds on strangers' data."""
