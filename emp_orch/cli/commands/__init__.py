"""The other commands, a file each: restart, exec, images, keys, doctor and so on. They parse, call and print. Loaded by
name from `main`.
"""
