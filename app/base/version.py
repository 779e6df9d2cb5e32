"""The release; Torg runs from its checkout, so no installed metadata knows it."""

VERSION = "0.1.0"
