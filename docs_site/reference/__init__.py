"""Pages written from what emp itself goes by: the schema of emp.yaml, click's commands, the API's OpenAPI document.

Each module has `page()`, which returns Markdown. Nothing here says what a thing means: the text is the source's own.
"""
