"""Docker Engines of our own: here, elsewhere by TLS and ssh; a registry; Compose; a machine in a container."""
