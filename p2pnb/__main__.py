"""`python -m p2pnb` is the command `p2pnb`."""

from p2pnb.cli import main

raise SystemExit(main())
