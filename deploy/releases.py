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
THEORIES = {  # of the training data, as their authors state it
    "sevennet-0": "PBE and PBE+U (MPtrj)",
    "sevennet-0-22may2024": "PBE and PBE+U (MPtrj)",
    "sevennet-l3i5": "PBE and PBE+U (MPtrj)",
    "nequix-mp-1": "PBE and PBE+U (MPtrj)",
    "nequix-mp-1-pft": "PBE and PBE+U (MPtrj)",
    "nequix-omat-1": "PBE and PBE+U (OMat24)",
    "nequix-oam-1": "PBE and PBE+U (OMat24, sAlex, MPtrj)",
    "nequix-oam-1-pft": "PBE and PBE+U (OMat24, sAlex, MPtrj)",
}
# Inner radii over the sums of contact radii; chosen in docs/measurements/universal.md. Relaxations
# of the Materials Project have longer distances than OMat24 and what unknown weights may know.
TRAINED_ON_RELAXATIONS = (*SEVENNET_NAMES, "nequix-mp-1-pft", "nequix-mp-1")
INNER_RELAXATIONS, INNER_OTHERS = 0.6, 0.5
RELEASES = (*SEVENNET_NAMES, *NEQUIX_NAMES)
