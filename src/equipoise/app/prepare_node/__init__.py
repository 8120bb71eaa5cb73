"""`equipoise layer4 prepare-node`: what a node needs so that packets may reach it by direct routing (`l4_dr`).

Such a node has the service's address itself, on an interface that nobody asks, and tells nobody that it has it: the
network must find that address at the balancer alone.  `wanted.py` says which addresses, `linux.py` and `windows.py`
what is to be done (pure), `apply.py` does it on the Linux machine it runs on.
"""
