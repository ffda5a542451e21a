"""What the service shows of itself over HTTP: metrics for Prometheus, whether it lives, whether it is ready.

Figures are counted where things happen, in plain numbers (:mod:`modelcatalog_server.domain.measures`), and read here
when somebody asks. prometheus_client and an HTTP server are imported after the service is ready, which does not need
them.
"""
