"""Machines as containers: Docker engines here and elsewhere, their images, `docker compose`. What an engine says is
passed on, not judged. Called through the `Runtime` protocol, and for images by `control`.
"""
