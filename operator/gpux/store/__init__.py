"""The store's server: files and calls over HTTP, for the operator and for the agents beside the jobs."""
