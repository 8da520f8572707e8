// compute ID all tesseral/uncertainty
//
// Per atom: the expected length of the error of its force, eV/Å, as pair_style tesseral computed it at
// this step. Scalar: the largest of the group.
#pragma once
#include <vector>

#include "compute.h"

namespace LAMMPS_NS {

class PairTesseral;

class ComputeTesseral : public Compute {
 public:
  ComputeTesseral(LAMMPS* lmp, int narg, char** arg);
  void init() override;
  double compute_scalar() override;
  void compute_peratom() override;
  double memory_usage() override;

 private:
  const PairTesseral* pair_ = nullptr;
  std::vector<double> values_;
};

}  // namespace LAMMPS_NS
