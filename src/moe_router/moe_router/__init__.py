"""Router: encoder, calibrated classifier, policy and the router node."""

import os

# The matrices here are small: a second thread of OpenBLAS costs ten times what it gives. Read when numpy is imported.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
