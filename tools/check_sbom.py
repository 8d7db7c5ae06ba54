"""Check the list of components (SBOM) in each of the given wheels against CycloneDX's schema."""

import sys
import zipfile

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

for path in sys.argv[1:]:
    with zipfile.ZipFile(path) as wheel:
        (name,) = (each for each in wheel.namelist() if each.endswith(".dist-info/sboms/fastgru.cdx.json"))
        fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(wheel.read(name).decode())
    if fault is not None:
        sys.exit(f"{path}: {name}: {fault}")
    print(f"{path}: {name} is CycloneDX 1.6")
