"""The job queue: worlds to run it in, the model it is held against, the stateful machine of both."""
