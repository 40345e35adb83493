"""Where trials run: each runner fulfils `types.Runner`, and nothing above it knows which one it is."""
