"""What a worker's exit code says, beside 0 (complete) and 75 (`os.EX_TEMPFAIL`: start it again)."""

FAILED = 1  # an error that nobody foresaw; the log has its traceback
MENDABLE = 2  # a problem that the message says how to mend
REFUSED = 3  # another attempt computes the cell
SUPERSEDED = 4  # another attempt took the folder over
OUT_OF_MEMORY = 5  # of the machine or of the GPU

FAILURES = (FAILED, MENDABLE, OUT_OF_MEMORY)
