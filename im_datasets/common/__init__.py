"""Nothing of a dataset goes in; what every stage stands on comes out: errors, the version, files written whole."""
