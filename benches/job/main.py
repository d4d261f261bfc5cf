"""A job of fixed work that prints a lot: what `make bench` runs under aicert and under plain Docker."""

import hashlib
import pathlib
import time

LINES, ROUNDS = 20_000, 300
start = time.perf_counter()
state = b"aicert"
for line in range(LINES):
    for _ in range(ROUNDS):
        state = hashlib.sha256(state).digest()
    print(f"step {line} {state.hex()}", flush=True)
seconds = time.perf_counter() - start
pathlib.Path("/workspace/outputs/seconds.txt").write_text(f"{seconds:.4f}\n")
