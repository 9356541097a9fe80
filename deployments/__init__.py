"""Where members and ensembles run: Ray Serve deployments, the engines in them, the wire between them, the HTTP gateway.

One module for each deployment: ``ingress`` (around ``gateway``, the HTTP app), ``driver`` (an ensemble), ``model``,
``embedder`` (an encoder) and ``feedback`` (the journal's keeper). ``member`` is the other end of all of them: a Serve
handle with the face of a ``Member``. Knows no configuration file; ``cluster.app`` puts the deployments together.
"""
