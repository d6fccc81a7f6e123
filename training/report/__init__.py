"""One HTML page of results: charts as SVG beside their tables, without scripts."""
