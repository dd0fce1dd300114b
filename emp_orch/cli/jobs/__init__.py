"""The commands about jobs: submit, wait, list, edit, fetch. They parse, call and print; decisions are in `jobs` and
`store`. Loaded by name from `main`.
"""
