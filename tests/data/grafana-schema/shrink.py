"""Name every schema that occurs more than once, so that one with everything in its place becomes small.

npx ts-json-schema-generator ... | python shrink.py > board.schema.json
"""

import json
import sys
from collections import Counter

WORTH_A_NAME = 120  # characters


def text(node):
    return json.dumps(node, sort_keys=True)


def schemas_in(node):
    """Yield a schema and those in it."""
    yield node
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", ())]
    inner += [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]
    for each in inner:
        yield from schemas_in(each)


def named(node, names, definitions):
    """Return a schema with references in place of those that have a name, and put these into the definitions."""
    inner = dict(node)
    if "properties" in node:
        inner["properties"] = {key: named(each, names, definitions) for key, each in node["properties"].items()}
    if "anyOf" in node:
        inner["anyOf"] = [named(each, names, definitions) for each in node["anyOf"]]
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            inner[key] = named(node[key], names, definitions)
    name = names.get(text(node))
    if name is None:
        return inner
    definitions[name] = inner
    return {"$ref": f"#/definitions/{name}"}


def main():
    board = json.load(sys.stdin)["definitions"]["Board"]
    times = Counter(text(each) for each in schemas_in(board))
    repeated = sorted(key for key, count in times.items() if count > 1 and len(key) > WORTH_A_NAME)
    names = {key: f"shared-{index}" for index, key in enumerate(repeated)}
    definitions = {}
    small = named(board, names, definitions)
    json.dump({**small, "definitions": definitions}, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


main()
