"""`make audit`: checks the installed packages for known vulnerabilities, with `pip-audit`.

Behind a mirror that has no advisories, pip-audit alone skips every package, reports "No known vulnerabilities found"
and exits with 0. Without a network it ends in a traceback and the exit code of a vulnerability. Here an audit passes
only if every package was looked up.

Exit code: 0 if no installed package has a known vulnerability; 1 if one has, each named with the versions that fix it;
2 if packages could not be looked up, which is one line. It audits the environment that runs it, tools of development
included. Not promised: that an advisory concerns what this service uses of a package; that the service is safe where no
advisory exists.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

AUDIT = [sys.executable, "-m", "pip_audit", "--format=json", "--desc=off", "--progress-spinner=off", "--skip-editable"]
OWN_PACKAGE = "reference-backend"  # no index has it
NAMED = 5  # packages that no index knows, in the line about them


def main() -> int:
    """Print what was found. Returns the exit code."""
    done = subprocess.run(AUDIT, capture_output=True, text=True, check=False)
    try:
        packages = [package for package in json.loads(done.stdout)["dependencies"] if package["name"] != OWN_PACKAGE]
    except ValueError:  # no JSON, because pip-audit has failed
        return refuse(done.stderr.strip().rpartition("\n")[2])
    found = [line for package in packages for line in vulnerabilities(package)]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if found:
        print("\n".join(found))
    if unknown:
        refuse(f"the index has no advisories for {len(unknown)} packages, such as {', '.join(unknown[:NAMED])}")
    elif not found:
        print(f"{len(packages)} packages without a known vulnerability")
    return 1 if found else 2 if unknown else 0


def vulnerabilities(package: Mapping[str, Any]) -> list[str]:
    """A line for each known vulnerability of the package."""
    which = f"{package['name']} {package.get('version')}"
    known = package.get("vulns", ())
    return [f"{which}: {one['id']}, fixed in {' or '.join(one['fix_versions']) or 'no version'}" for one in known]


def refuse(reason: str) -> int:
    print(f"not audited: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
