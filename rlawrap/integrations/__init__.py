"""rlawrap inside other libraries: a folder each, imported by its name alone, each an extra.

Nothing else of rlawrap imports them, so that `import rlawrap` needs none of these libraries.
"""
