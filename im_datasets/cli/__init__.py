"""Words of a command line go in; a call of the package and a summary for a person come out."""
