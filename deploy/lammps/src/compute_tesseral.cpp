#include "compute_tesseral.h"

#include <algorithm>

#include "atom.h"
#include "error.h"
#include "force.h"
#include "pair_tesseral.h"
#include "update.h"

using namespace LAMMPS_NS;

ComputeTesseral::ComputeTesseral(LAMMPS* lmp, int narg, char** arg) : Compute(lmp, narg, arg) {
  if (narg != 3) error->all(FLERR, "compute tesseral/uncertainty takes no arguments after the group; found '{}'", arg[3]);
  scalar_flag = peratom_flag = 1;
  extscalar = size_peratom_cols = 0;
}

void ComputeTesseral::init() {
  pair_ = dynamic_cast<const PairTesseral*>(force->pair_match("tesseral", 1));
  if (!pair_) error->all(FLERR, "compute tesseral/uncertainty needs pair_style tesseral");
  if (!pair_->knows_uncertainty())
    error->all(FLERR, "the model of pair_style tesseral does not know its uncertainty here: train-potential fit and "
               "calibrate add it, and the keyword portable does not compute it; export the model again");
}

double ComputeTesseral::compute_scalar() {
  invoked_scalar = update->ntimestep;
  const auto& values = pair_->uncertainties();
  double own = 0;
  for (int i = 0; i < std::min<int>(atom->nlocal, values.size()); i++)
    if (atom->mask[i] & groupbit) own = values[i] <= own ? own : values[i];  // keeps a NaN
  MPI_Allreduce(&own, &scalar, 1, MPI_DOUBLE, MPI_MAX, world);
  return scalar;
}

void ComputeTesseral::compute_peratom() {
  invoked_peratom = update->ntimestep;
  const auto& values = pair_->uncertainties();
  values_.assign(atom->nmax, 0.0);
  for (int i = 0; i < std::min<int>(atom->nlocal, values.size()); i++)
    if (atom->mask[i] & groupbit) values_[i] = values[i];
  vector_atom = values_.data();
}

double ComputeTesseral::memory_usage() { return double(values_.capacity()) * sizeof(double); }
