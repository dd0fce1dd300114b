"""Many boxes that join one pool at once, while a stranger guesses tokens: how many get in, and how soon."""
