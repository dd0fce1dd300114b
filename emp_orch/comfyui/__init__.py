"""What is known of a checkout of ComfyUI: what it must hold, its options, and how one slot of it is started.

It reads the checkout and writes below the slot's folder. Nothing here talks to a ComfyUI that runs: the connector does.
"""
