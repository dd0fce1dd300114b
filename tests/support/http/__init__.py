"""The API and the page as real processes, and clients that read them."""
