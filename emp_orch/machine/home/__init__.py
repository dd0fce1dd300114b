"""What a machine is on its host: its folder, its keys, its GPUs, its programs as supervisord tells. Nothing is started
here. Called by the rest of `machine`.
"""
