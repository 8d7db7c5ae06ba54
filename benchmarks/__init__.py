"""How fast, how large and how exact fastgru is; `python -m benchmarks` runs everything."""
