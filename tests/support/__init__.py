"""What tests have in common, by subject. Nothing here is collected; `tests/` is on the path (pyproject.toml)."""
