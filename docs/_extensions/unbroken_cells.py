"""Short cells of a table, such as 1e-16 or n = 512, are never broken at a hyphen or a space: they get the class `unbroken`."""

from docutils import nodes

LONGEST = 12


def mark(app, doctree):
    for cell in doctree.findall(nodes.entry):
        if 0 < len(cell.astext()) <= LONGEST:
            cell["classes"].append("unbroken")


def setup(app):
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
