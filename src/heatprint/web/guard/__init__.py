"""The guard as a service: its HTTP application, its server and its client. Only `server` and `app` need FastAPI."""
