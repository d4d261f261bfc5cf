"""A job that takes every byte there is on the machine's disk, goes on for a while, and ends as if nothing was wrong."""

import errno
import os
import time

with open("/workspace/outputs/checkpoint.bin", "wb") as file:
    file.write(b"what it had until then")
size, taken = 1 << 30, 0
file = os.open("/tmp/cache.bin", os.O_CREAT | os.O_WRONLY)
while size >= 4096:
    try:
        os.posix_fallocate(file, taken, size)
        taken += size
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        size //= 2
print("took", taken, "bytes: the disk is full", flush=True)
for number in range(2000):
    print("still here", number, "x" * 80, flush=number % 100 == 0)
    time.sleep(0.001)
