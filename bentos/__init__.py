"""The door: the service that answers over HTTP and the client that calls it. Imports only `models` of ours."""
