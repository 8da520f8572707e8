"""Names of the published weights that `deploy.convert` knows; read without importing PyTorch."""

from __future__ import annotations

INTERVALS = 400  # of the splines that replace radial networks; see docs/measurements/universal.md
SEVENNET_NAMES = {  # name → path in the package's pretrained_potentials
    "sevennet-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet-0-22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "sevennet-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "sevennet-mf-0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
}
NEQUIX_NAMES = (
    "nequix-oam-1-pft",
    "nequix-oam-1",
    "nequix-omat-1",
    "nequix-mp-1-pft",
    "nequix-mp-1",
)
THEORY = "PBE+U"  # of all with one level: that of the Materials Project
RELEASES = (*SEVENNET_NAMES, *NEQUIX_NAMES)
