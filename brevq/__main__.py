"""`python -m brevq`, the same as the command `brevq`."""

from brevq.cli import main

main()
