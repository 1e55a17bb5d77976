"""What ``bench/fuzz.py`` tries: a module a surface, and how a try is run and judged."""
