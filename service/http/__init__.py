"""HTTP: requests, responses, problems, admission and views."""
