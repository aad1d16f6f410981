"""What a file begins with, by which formats are told apart without reading it whole."""

import csv
import json
import os

__all__ = ["first_json_object", "header_columns"]

_HEAD = 2**16  # characters of a file that are looked at


def _head(file: str) -> str:
    if not os.path.isfile(file):  # a pipe can be read once only
        return ""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as handle:
            return handle.read(_HEAD)
    except OSError:
        return ""


def first_json_object(file: str) -> dict:
    """The first of a file's list of JSON objects; empty where it is another kind of file."""
    head = _head(file).lstrip()
    start = head.find("{")
    if not head.startswith("[") or head[1 : max(start, 1)].strip():
        return {}
    try:
        return json.JSONDecoder().raw_decode(head, start)[0]
    except ValueError:
        return {}


def header_columns(file: str) -> set[str]:
    """Columns that the first line of a file with commas names."""
    lines = _head(file).lstrip().splitlines()[:1]
    try:
        return {name.strip() for name in next(csv.reader(lines), [])}
    except csv.Error:
        return set()
