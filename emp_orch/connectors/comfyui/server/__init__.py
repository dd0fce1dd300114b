"""What a ComfyUI server is and says: protocol, session, folders, catalog, who occupies it. No job's run. Called by the
rest of the connector.
"""
