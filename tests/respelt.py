"""Other spellings of a token, which lenient base64 and JSON decoders accept as the same."""

import base64
import hashlib
import hmac
import json
import string

from tests.conftest import SECRET

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def respelt(token: str) -> list[str]:
    """Variants of the token: with padding, spare bits, white space, foreign characters, an extra segment."""
    head, body, signature = token.split(".")
    spare = ALPHABET[ALPHABET.index(signature[-1]) ^ 1]  # 43 characters are 258 bits, of which 256 count
    signatures = [
        f"{signature}=", f"{signature}==", f"{signature}====", f"{signature[:-1]}{spare}", f"{signature}\n",
        f" {signature}", f"{signature[:9]}\r\n{signature[9:]}", f"{signature[:9]}!{signature[9:]}", f"{signature}*",
    ]  # fmt: skip
    return [
        *(f"{head}.{body}.{other}" for other in signatures),
        f"{head}=.{body}.{signature}", f"{head}.{body}=.{signature}", f"{token}.", f"{token}.{signature}", f".{token}",
        f"{token} ", f" {token}", f"\t{token}",
    ]  # fmt: skip


def signed_anew(token: str, **changes: object) -> str:
    """The token's claims with `changes`, in other JSON spacing, signed with the service's secret."""
    head, body, _ = token.split(".")
    claims = json.dumps({**json.loads(base64.urlsafe_b64decode(body + "==")), **changes}, separators=(" , ", " : "))
    signed = f"{head}.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}"
    signature = hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
