"""Shards that are missing go in; finished shards come out, from this machine or a Ray cluster."""
