"""``python -m ntk_course`` is the command ``ntk-course``, for torchrun and for where the command is not on the path."""

from .replication.cli import main

raise SystemExit(main())
