"""A room that works for minutes or hours while everything under it breaks: `python -m tests.soak --minutes 30`."""
