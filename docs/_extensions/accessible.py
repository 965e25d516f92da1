"""Roles in the HTML of Sphinx that screen readers cannot use: headings of the navigation get a level; a list of sources, whose
entries have a role of their own, is no list."""

REPLACED = {
    'role="heading"': 'role="heading" aria-level="2"',
    'role="list" class="citation-list"': 'class="citation-list"',
}


def mend(app, page, template, context, document):
    for part in ("body", "furo_navigation_tree"):
        for old, new in REPLACED.items():
            if part in context:
                context[part] = context[part].replace(old, new)


def setup(app):
    app.connect("html-page-context", mend, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
