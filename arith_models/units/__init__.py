"""Units: layers with inputs and outputs, one module a family. A unit does not depend on any network.

A module defines one unit, whose name is the file's stem, or has a mapping `UNITS` of names to the units that it defines.
"""
