"""What a worker's exit code says, beside 0 (complete) and 75 (`os.EX_TEMPFAIL`: start it again)."""

import os

FAILED = 1  # an error that nobody foresaw; the log has its traceback
MENDABLE = 2  # a problem that the message says how to mend
REFUSED = 3  # another attempt computes the cell
SUPERSEDED = 4  # another attempt took the folder over
OUT_OF_MEMORY = 5  # of the machine or of the GPU

# Any other is a failure: of a shell or a container too that does not find what it is to run.
NO_FAILURES = (os.EX_OK, os.EX_TEMPFAIL, REFUSED, SUPERSEDED)
