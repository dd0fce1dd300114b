"""One run on a ComfyUI server: submitted, followed, kept apart from other runs. No file is moved. Called by `files` and
the client.
"""
