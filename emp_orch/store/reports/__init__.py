"""What machines and workers say of themselves: written by them, read whole or by what changed, bounded in size. It
judges nobody alive or dead. Called by agents, workers, the reconciler and the API.
"""
