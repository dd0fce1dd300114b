"""How soon a fleet of containers is ready: `emp apply` beside `docker compose up --wait` with the same containers."""
