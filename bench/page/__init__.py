"""The page of `python -m bench report`: results of benchmarks as charts and tables in one file."""
