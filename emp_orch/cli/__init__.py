"""One file per group of commands: parse, call, print, exit code."""

from emp_orch.isolation import settle

# Before anything else is imported: whoever enters emp enters here.
settle()
