"""All that makes a pass fast: staging, graphs, traces, the choice of a runtime."""
