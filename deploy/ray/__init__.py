"""kshot on Ray Serve: an ingress that reads requests, and engines that compute."""
