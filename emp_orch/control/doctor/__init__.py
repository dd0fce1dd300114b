"""`emp doctor`: facts are gathered at once, each with a deadline; checks are functions of them, in one table."""
