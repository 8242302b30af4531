"""Router: encoder, calibrated classifier, policy and the router node."""
