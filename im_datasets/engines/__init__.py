"""Who computes a run's shards: this machine (``local``) or a Ray cluster (``ray``)."""
