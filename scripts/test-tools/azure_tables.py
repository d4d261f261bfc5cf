"""Azure's operations and models, out of the Python packages that Microsoft generates from its published specifications.

The packages are read and never run: what is needed of them are tables (`_attribute_map`, `_validation`), enumerations, and the
address, versions and status codes in each operation. The versions are those that azure_mgmt_compute 0.21 sends, and for what
aicert sends itself those that it names.
"""

import ast
import json
import re

# The package, the folder of the version in it, and what of its operations is wanted.
UNITS = [
    ("compute", "v2024_07_01", ["VirtualMachines"]),
    ("compute", "v2024_03_02", ["Disks"]),
    ("compute", "v2023_07_03", ["Galleries", "GalleryImages", "GalleryImageVersions"]),
    ("compute", "v2021_07_01", ["ResourceSkus"]),
    ("network", "", ["NetworkSecurityGroups", "VirtualNetworks", "PublicIPAddresses", "NetworkInterfaces"]),
    ("resource", "resources/v2022_09_01", ["Providers", "ResourceGroups", "Resources"]),
    ("devtestlabs", "", ["GlobalSchedules"]),
]


def first(pattern, text):
    found = re.search(pattern, text, re.S)
    return found.group(1) if found else None


def segment(source, node):
    """The lines of a node; the `ast` module's own way takes the whole source apart each time."""
    return "\n".join(source[node.lineno - 1 : node.end_lineno])


def parsed(folder, pattern):
    for path in sorted(folder.glob(pattern)):
        source = path.read_text(encoding="utf-8")
        yield source.splitlines(), ast.parse(source)


def enums(folder):
    found = {}
    for _, tree in parsed(folder, "models/*enums.py"):
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = [
                    item.value.value
                    for item in node.body
                    if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
                ]
    return found


def own_tables(node):
    """What a model has written down itself; one that adds nothing to its base has no tables."""
    return {
        item.targets[0].id: ast.literal_eval(item.value)
        for item in node.body
        if isinstance(item, ast.Assign) and item.targets[0].id in ("_attribute_map", "_validation")
    }


def models(folder, enumerations):
    found = {}
    tables_of = {}
    for _, tree in parsed(folder, "models/_models_py3.py"):
        # Models stand before those that they are the base of only by chance.
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

        def with_bases(node):
            if node.name not in tables_of:
                tables = {}
                for base in reversed(node.bases):
                    if isinstance(base, ast.Name) and base.id in classes:
                        tables |= with_bases(classes[base.id])
                tables_of[node.name] = tables | own_tables(node)
            return tables_of[node.name]

        for node in classes.values():
            tables = with_bases(node)
            words = ast.get_docstring(node) or ""
            attributes = []
            for name, entry in tables.get("_attribute_map", {}).items():
                rule = tables.get("_validation", {}).get(name, {})
                said = first(rf":(?:vartype|type) {name}:(.*?)(?=\n:|\Z)", words) or ""
                # A name may be broken by the end of a line.
                named = re.search(r"~azure\.[\w.]*models\.(\w+)", re.sub(r"\s+", "", said))
                attributes.append(
                    {
                        "path": [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", entry["key"])],
                        "type": entry["type"],
                        "required": bool(rule.get("required")),
                        "readonly": bool(rule.get("readonly")),
                        "enum": named.group(1) if named and named.group(1) in enumerations else None,
                    }
                )
            found[node.name] = attributes
    return found


def plain(text):
    """A type as the package writes it, without its folder."""
    return None if text is None else text.split(".")[-1] if text[0] not in "[{" else text


def operations(folder, groups):
    found = []
    for source, tree in parsed(folder, "operations/_*operations.py"):
        builders = {
            node.name: segment(source, node)
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("build_")
        }
        for group in tree.body:
            if not isinstance(group, ast.ClassDef) or group.name.removesuffix("Operations") not in groups:
                continue
            methods = {
                node.name: segment(source, node) for node in group.body if isinstance(node, ast.FunctionDef)
            }
            text = segment(source, group)
            for name, body in methods.items():
                entry = new_style(body, builders) or old_style(name, body, text)
                if entry is None:
                    continue
                plain_name = name.removeprefix("_").removesuffix("_initial")
                whole = methods.get(f"begin_{plain_name}", "") + body
                entry["id"] = group.name.removesuffix("Operations") + "_" + "".join(
                    word.capitalize() for word in plain_name.removeprefix("begin_").split("_")
                )
                entry["statuses"] = [int(code) for code in first(r"status_code not in \[([\d, ]+)\]", body).split(",")]
                entry["request"] = plain(first(r"_serialize\.body\(\s*\w+,\s*[\"']([^\"']+)", body))
                entry["response"] = plain(first(r"_deserialize\(\s*[\"']([^\"']+)", whole))
                found.append(entry)
    return found


def new_style(body, builders):
    builder = first(r"(build_\w+_request)\(", body)
    if builder is None or "status_code not in" not in body:
        return None
    text = builders[builder]
    return {
        "path": first(r"[\"'](/[^\"']+)[\"']", text),
        "method": first(r"method=[\"'](\w+)", text),
        "api_version": first(r"\"api-version\",\s*\"([\w-]+)\"", text),
        "query": re.findall(r"_params\[\"([^\"]+)\"\]", text),
    }


def old_style(name, body, text):
    path = first(rf"\n    {name}\.metadata = \{{'url': '([^']+)'", text)
    if path is None:
        path = first(rf"\n    (?:begin_)?{name.removeprefix('_').removesuffix('_initial')}\.metadata = \{{'url': '([^']+)'", text)
    method = first(r"self\._client\.(get|put|post|delete|patch)\(", body)
    if path is None or method is None:
        return None
    return {
        "path": path,
        "method": method.upper(),
        "api_version": first(r"api_version = \"([\w-]+)\"", body),
        "query": re.findall(r"query_parameters\['([^']+)'\]", body),
    }


def write(packages, to):
    units = []
    for package, version, groups in UNITS:
        folder = packages / package / version
        enumerations = enums(folder)
        units.append(
            {
                "name": f"azure-mgmt-{package} {version}".strip(),
                "operations": operations(folder, groups),
                "models": models(folder, enumerations),
                "enums": enumerations,
            }
        )
        assert units[-1]["operations"], folder
    to.write_text(json.dumps(units, indent=1), encoding="utf-8")
