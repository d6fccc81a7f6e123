"""Where tasks are kept: one protocol, two stores."""
