"""Files of a worker's jobs: inputs fetched or found, outputs saved, directly or through the API. No run is judged.
Called by `run` and the daemon.
"""
