"""Files of a run on a ComfyUI server: inputs before it, outputs after it, and what is tidied away. Called by the client
and the connector.
"""
