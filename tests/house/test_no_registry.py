"""No file of the house names a package registry's host: where packages come from is the reader's to say."""

import re

from tests.house.tree import ROOT, files

# Spelt in pieces, or this file would be the first to be found.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("anaconda", "org"),
        ("jsdelivr", "net"),
        ("unpkg", "com"),
        ("cdnjs", "cloudflare", "com"),
    )
]
NAMED = re.compile("|".join(map(re.escape, HOSTS)).encode())


def test_no_file_names_a_registry() -> None:
    assert [name for name in files() if NAMED.search((ROOT / name).read_bytes())] == []


def test_a_name_would_be_seen() -> None:
    assert NAMED.search(f"--index-url https://{HOSTS[0]}/simple".encode())
