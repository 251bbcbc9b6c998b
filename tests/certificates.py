"""An authority of a test's own, with a server's certificate for 127.0.0.1 and a client's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True, frozen=True)
class Certificates:
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        folder.mkdir()
        made = cls(folder)
        made._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"
        )
        for name, extension in (
            ("server", "subjectAltName=IP:127.0.0.1"),
            ("client", "extendedKeyUsage=clientAuth"),
        ):
            (folder / f"{name}.ext").write_text(extension)
            made._openssl(
                f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            )
            made._openssl(
                f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
            )
        return made

    def _openssl(self, command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=self.folder, check=True, capture_output=True)

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def server_options(self, port: int) -> dict[str, str | int]:
        """A client needs a certificate of this authority."""
        return {
            "tls_port": port,
            "tls_cert_file": self["server.crt"],
            "tls_key_file": self["server.key"],
            "tls_ca_cert_file": self["ca.crt"],
            "tls_auth_clients": "yes",
        }
