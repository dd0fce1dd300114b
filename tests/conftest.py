"""Being here puts tests/ on the path, so that tests import their *_support modules."""
