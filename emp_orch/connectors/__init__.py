"""The worker's adapters to services: one file each, one Protocol."""
