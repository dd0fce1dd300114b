"""The page on :3333, its server, and the event log that follows the API's stream."""
