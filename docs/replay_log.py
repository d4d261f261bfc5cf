#!/usr/bin/env python3
"""Replays the measurement log of a proof file: the log format's executable description (docs/log-format.md).

usage: replay_log.py PROOF     prints PCR 14 and PCR 15 from the log, and whether the quoted ones are equal
"""

import hashlib
import json
import sys

proof = json.load(open(sys.argv[1], encoding="utf-8"))
bank = proof["low_level_quote"]["bank"]
digest_of = lambda data, name=bank: hashlib.new(name, data).digest()
canonical = lambda event: json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
pcrs = {14: bytes(hashlib.new(bank).digest_size), 15: bytes(hashlib.new(bank).digest_size)}
for event in proof["measurement_log"]:
    pcrs[event["pcr"]] = digest_of(pcrs[event["pcr"]] + digest_of(b"aicert/event/v1\0" + canonical(event)))
quoted = proof["low_level_quote"]["pcrs"]
for index, value in pcrs.items():
    print(f"PCR {index} {value.hex()} {'equals the quote' if quoted[str(index)] == value.hex() else 'DIFFERS'}")
sys.exit(any(quoted[str(index)] != value.hex() for index, value in pcrs.items()))
