"""A job that takes its time, says how far it is, and leaves some tens of megabytes."""

import os
import time

for step in range(int(os.environ["STEPS"])):
    print("step", step, flush=True)
    time.sleep(1)
with open("/workspace/outputs/model.bin", "wb") as file:
    for number in range(32):
        file.write(bytes([number]) * (1 << 20))
