"""The documentation as a site: docs/ and a reference that is generated from schema, commands and API.

`make docs` builds it: `pages` gathers the sources, `reference` writes the generated pages, zensical makes HTML of both,
and `links` checks what came out. Nothing in emp_orch imports this package.
"""
