"""Takes the vendors' published API definitions out of their Python packages, as JSON for the tests.

The environment has moto's server, with botocore; PYTHONPATH has the other packages, without what they depend on.
"""

import pathlib
import shutil
import sys
from importlib.util import find_spec


def folder_of(package):
    """Where a package is, without importing it."""
    return pathlib.Path(find_spec(package).submodule_search_locations[0])


def google(to):
    """Google's discovery documents."""
    documents = folder_of("googleapiclient") / "discovery_cache" / "documents"
    for name in ["compute.v1.json", "storage.v1.json"]:
        shutil.copy(documents / name, to / f"google-{name}")


def amazon(to):
    """Amazon's service models."""
    for service in ["ec2", "ebs"]:
        newest = max((folder_of("botocore") / "data" / service).glob("*/service-2.json*"))
        if newest.suffix == ".gz":
            import gzip

            (to / f"aws-{service}.json").write_bytes(gzip.decompress(newest.read_bytes()))
        else:
            shutil.copy(newest, to / f"aws-{service}.json")


def microsoft(to):
    """Azure's operations and models."""
    import azure_tables as tables

    packages = next(folder for folder in map(pathlib.Path, sys.path) if (folder / "azure" / "mgmt" / "compute").is_dir())
    tables.write(packages / "azure" / "mgmt", to / "azure.json")


def main(to):
    to = pathlib.Path(to)
    to.mkdir(parents=True, exist_ok=True)
    google(to)
    amazon(to)
    microsoft(to)


main(sys.argv[1])
