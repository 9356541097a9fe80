"""How it is put on machines: the configuration, its plan, the nodes, the command ``ensemble``, Kubernetes objects.

Read in this order: ``config`` (the file), ``plan`` (what becomes of it), ``placing`` (where), ``app`` (the Serve
application), ``local`` (running it). Knows no jobs; what runs in the replicas is ``deployments``.
"""
