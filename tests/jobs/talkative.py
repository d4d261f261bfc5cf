"""A job that prints more than any buffer holds, measures how long that takes, and leaves some tens of megabytes."""

import json
import time

LINES, LINE = 120_000, "x" * 90

started = time.monotonic()
for number in range(LINES):
    print(number, LINE)
print("printed everything", flush=True)
took = time.monotonic() - started
# Long enough for others to come by.
time.sleep(20)
with open("/workspace/outputs/took.json", "w") as file:
    json.dump({"seconds": took}, file)
with open("/workspace/outputs/model.bin", "wb") as file:
    for number in range(32):
        file.write(bytes([number]) * (1 << 20))
