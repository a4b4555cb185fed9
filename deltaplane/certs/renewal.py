"""A node's own certificate in its folder, which is replaced before it runs out.

    DIR/ca.crt tls.crt tls.key   in use
    DIR/.asked/tls.key           of a request that has no answer yet

The key of a request is kept until the answer is here: who was ended in between goes on with it.
"""

import contextlib
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deltaplane.certs import files, requesting
from deltaplane.errors import Invalid, Refused
from deltaplane.runtime import tls
from deltaplane.runtime.roles import Peer
from deltaplane.runtime.tls import CA, CERTIFICATE, KEY

ASKED, LOOKED_AT = ".asked", ".look"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A request to make, or that has been made.

    Attributes:
        name: of the request.
        request: PKCS #10, PEM.
    """

    name: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Renewal:
    """The folder of a node.

    Attributes:
        folder: with its files.
        peer: whose they are.
        ca: what is believed in, PEM.
    """

    folder: Path
    peer: Peer
    ca: bytes

    def reason(self, now: datetime) -> str:
        """Why another certificate is needed; empty: none is, and `ca.crt` is as it should be."""
        try:
            certificate = (self.folder / CERTIFICATE).read_bytes()
            is_believed = (self.folder / CA).read_bytes() == self.ca
            if is_believed:
                self._check(self.folder)
            else:
                self._compare(certificate, (self.folder / KEY).read_bytes())
            if requesting.is_due(certificate, now):
                return "it ends soon"
        except FileNotFoundError as error:
            return f"there is no {Path(error.filename).name}"
        except (OSError, Invalid, Refused) as error:
            return f"what is there cannot be used: {error}"
        if not is_believed:
            files.write(self.folder, {CA: self.ca})
        return ""

    def asking(self) -> Asking:
        """The request, with the key of the one before if that has had no answer."""
        place = self.folder / ASKED
        with contextlib.suppress(OSError, Invalid):
            return self._asking((place / KEY).read_bytes())
        key = requesting.new_key()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write(place, {KEY: key})
        return self._asking(key)

    def take(self, certificate: bytes) -> None:
        """Puts the answer to use. certificate: with what lies between it and the CA, PEM.

        Raises:
            Refused: it is not of our key, not ours, or not of our CA.
        """
        key = (self.folder / ASKED / KEY).read_bytes()
        self._compare(certificate, key)
        # The certificate last: whoever watches it finds the key that belongs to it.
        files.write(self.folder, {KEY: key, CA: self.ca, CERTIFICATE: certificate})
        self.forget()

    def forget(self) -> None:
        """The request has had its answer: the next one has another key."""
        shutil.rmtree(self.folder / ASKED, ignore_errors=True)

    def _asking(self, key: bytes) -> Asking:
        return Asking(
            name=requesting.name(self.peer, key), request=requesting.request(self.peer, key)
        )

    def _compare(self, certificate: bytes, key: bytes) -> None:
        """Looks at what is not in use, or not with this CA. Raises Refused, see `_check`."""
        place = self.folder / LOOKED_AT
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        try:
            files.write(place, {KEY: key, CA: self.ca, CERTIFICATE: certificate})
            self._check(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _check(self, place: Path) -> None:
        """Raises Refused: they are not for each other, not of the CA, not ours, or have run out."""
        found = tls.check(place)
        if found.peer != self.peer:
            raise Refused(f"it is of {found.peer}, not of {self.peer}")
