"""`python -m emp_orch` is `emp`: how supervisord starts the daemons."""

from emp_orch.cli.main import main

main()
