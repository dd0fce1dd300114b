"""How soon the first member of an empty pool takes a job, beside the same container that the engine starts alone."""
