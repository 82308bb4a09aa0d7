"""The agent beside a worker: what a job sees of GPUX.

Only the standard library, and of that only what is small: it runs once per job, and its memory is the job's.
"""
