"""Published universal potentials that can be had, with their origins and scores."""

from __future__ import annotations

from typing import Any, NamedTuple

NEQUIX = "https://github.com/atomicarchitects/nequix/raw/{}/models/{}.nqx"
FIRST, SECOND = (  # commits that the package nequix 0.4.5 downloads from
    "7c2854de8e754b1a60274c7d9d2e014989ed632e",
    "9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28",
)
MACHINE = "one core of an AMD EPYC with AVX-512, 216 atoms"  # of the speeds


class Published(NamedTuple):
    """A published potential. The numbers are measured in docs/measurements/universal.md."""

    name: str
    data: str  # training data
    theory: str  # level of theory; several are separated by commas
    licence: str
    mirror: bool  # whether mirror images have equal energies
    elements: int
    cutoff: float  # Å
    size: float  # MB of the model file
    package: str  # that contains the weights, or downloads them
    speed: tuple[float, float] | None = None  # µs/atom, Si and MgO
    forces: float | None = None  # meV/Å, mean length of the force error, five mlearn test sets
    lattice: float | None = None  # %, mean error of lattice constants against PBE
    modulus: float | None = None  # %, mean error of bulk moduli against PBE
    elastic: float | None = None  # %, of C11, C12 and C44 of cubic crystals against experiment
    optical: float | None = None  # %, of transverse optical phonons at Γ against experiment
    url: str = ""  # of the weights
    sha256: str = ""  # of that file; without it nothing is downloaded


def _nequix(name: str, data: str, commit: str, **more: Any) -> Published:
    return Published(
        name=name,
        data=data,
        theory="PBE+U",
        licence="CC-BY-4.0",
        mirror=True,
        elements=89,
        cutoff=6.0,
        size=7.2,
        package="nequix",
        url=NEQUIX.format(commit, name),
        **more,
    )


def _sevennet(name: str, data: str, theory: str, size: float, **more: Any) -> Published:
    return Published(
        name=name,
        data=data,
        theory=theory,
        licence="MIT",
        mirror=False,
        elements=89,
        cutoff=5.0,
        size=size,
        package="sevenn",
        **more,
    )


DEFAULTS = ("nequix-oam-1-pft", "sevennet-0")  # the best; and one that needs no download
CATALOGUE = {
    each.name: each
    for each in (
        _nequix(
            "nequix-oam-1-pft",
            "OMat24, sAlex, MPtrj, MDR phonons",
            SECOND,
            sha256="4ce693d68886512aab50c84ea2400efd68163e11155f7c7babe98e695177e809",
            speed=(194, 414),
            forces=105,
            lattice=0.28,
            modulus=6.8,
            elastic=16,
            optical=7.8,
        ),
        _nequix(
            "nequix-oam-1",
            "OMat24, sAlex, MPtrj",
            SECOND,
            sha256="6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c",
            speed=(188, 391),
            forces=105,
            lattice=0.24,
            modulus=6.5,
            elastic=16,
            optical=11.1,
        ),
        _nequix("nequix-omat-1", "OMat24", SECOND),
        _nequix("nequix-mp-1-pft", "MPtrj, MDR phonons", FIRST),
        _nequix(
            "nequix-mp-1",
            "MPtrj",
            FIRST,
            sha256="1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
            speed=(191, 402),
            forces=227,
            lattice=0.36,
            modulus=12.6,
            elastic=26,
            optical=14.3,
        ),
        _sevennet(
            "sevennet-l3i5",
            "MPtrj",
            "PBE+U",
            12.7,
            speed=(241, 455),
            forces=243,
            lattice=0.42,
            modulus=8.2,
            elastic=25,
            optical=15.1,
        ),
        _sevennet(
            "sevennet-0",
            "MPtrj",
            "PBE+U",
            8.0,
            speed=(118, 212),
            forces=295,
            lattice=0.2,
            modulus=10.0,
            elastic=30,
            optical=18.0,
        ),
        _sevennet(
            "sevennet-mf-0",
            "MPtrj, MP-r2SCAN",
            "PBE, R2SCAN",
            9.1,
            speed=(120, 212),
            forces=250,
            lattice=0.22,
            modulus=7.0,
            elastic=32,
            optical=19.6,
        ),
    )
}
