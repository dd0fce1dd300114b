"""The commands that run until they are stopped: control plane, machine, simulation, ComfyUI. They build their adapters
and start them. Loaded by name from `main`, and named in rendered files.
"""
