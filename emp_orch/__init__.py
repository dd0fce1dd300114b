"""emp: one file says what a GPU fleet should be; emp makes it so and keeps it so."""

__version__ = "0.1.0"
