"""Gunicorn's settings in its tests: a worker says when it may be sent signals. Before that, it loses them."""

control_socket_disable = True  # or else newer versions make one in the user's home


def post_worker_init(worker):
    """Called by gunicorn."""
    worker.log.info("The worker takes signals")
