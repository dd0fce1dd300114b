"""What is found out before anything starts: ports, GPUs, Docker hosts, images, Redis, the artifact store. A check
refuses or passes and changes nothing, but for images that it pulls. Called by `apply`, doctor and the CLI.
"""
