"""Fleet → what each machine should run: programs, containers, GPU slots, start-up phases. It knows nothing of what
runs. Called by `drift` and `plan`, the renderers, and whoever starts a machine.
"""
