"""A whole fleet as a user has it, brought up by `emp`, and what is done to it."""
