"""A scored dataset goes in; a Selection comes out: rows kept, and rows dropped with their reasons."""
