"""The pure half of the executor side: values and decisions, no processes, no clocks, no files."""
