"""A WSGI service: one layer, loaded once, shared by all workers and their threads."""

import numpy as np

import fastgru

layer = fastgru.load("layer.npz")  # in the parent, before it forks
features = layer.weights[0].shape[0]


def app(environ, start_response):
    """A body of float32, (timesteps, features), to the last state, (units,)."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if not body or len(body) % (4 * features):
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"the body must be whole frames of float32\n"]
    x = np.frombuffer(body, "<f4").reshape(1, -1, features)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [layer(x).tobytes()]
