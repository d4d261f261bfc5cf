"""A job whose outputs are larger than what anybody wants to have in memory: GIBIBYTES of them, in two files."""

import os

PART = int(os.environ["GIBIBYTES"]) << 29
for name in ("a.bin", "b.bin"):
    with open(f"/workspace/outputs/{name}", "wb") as file:
        for number in range(PART >> 20):
            file.write(number.to_bytes(8, "little") * (1 << 17))
    print("wrote", name, flush=True)
