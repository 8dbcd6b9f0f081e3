"""A published selection goes in; every claim of it comes out with what came of checking it, or why nobody can."""
