"""Redis and Valkey servers of a test's own: plain, by TLS, behind sentinels, behind an address that moves."""
