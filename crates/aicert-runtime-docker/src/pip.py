"""Runs pip in the container with aicert's settings, whatever the image's environment says."""

import os
import runpy
import sys

config, bundle = sys.argv[1], sys.argv[2]
arguments = sys.argv[3:]
for name in list(os.environ):
    if name.startswith("PIP_") or name.lower().endswith("_proxy"):
        del os.environ[name]
os.environ["PIP_CONFIG_FILE"] = config
if os.path.exists(bundle):
    # Certificates to trust in addition to those that pip brings.
    from pip._vendor import certifi

    own = certifi.where()
    joined = os.path.join(os.environ.get("TMPDIR", "/tmp"), "ca-bundle.pem")
    with open(joined, "wb") as target:
        for source in (own, bundle):
            with open(source, "rb") as part:
                target.write(part.read() + b"\n")
    arguments += ["--cert", joined]
sys.argv = ["pip", *arguments]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
