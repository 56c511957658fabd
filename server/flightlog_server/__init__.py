"""The flightlog server: accounts, ingestion, the metric index, and the page. `flightlog server --data DIR` runs it."""
