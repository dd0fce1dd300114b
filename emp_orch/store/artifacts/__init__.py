"""Files of jobs: outputs, inputs, assets and previews, in a folder or any fsspec store. It takes no decision about a
job. Called by workers, the API, the CLI and the retention of `control/jobs`.
"""
