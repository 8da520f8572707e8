// Pair style: neighbours in, energies, forces and virials out. The engine (engine.h) evaluates the
// model.
//
// On one process, ghosts are images of its own atoms, and edges start at those atoms. On several,
// ghosts receive the features of their owners after each layer, and their gradients are sent back
// (kernels.h, tesseral_exchange). Forces on ghosts are sent to their owners as in any pair style.
#include "pair_tesseral.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "exceptions.h"
#include "fix.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {
constexpr int doubles_per_message = 128;  // per atom; LAMMPS needs it before the model is read
constexpr char not_all[] = "pair_style tesseral must see all atoms and pairs of atoms: use pair_style hybrid/overlay, "
                           "not hybrid, and no neigh_modify include";

bool inserts_atoms(const Fix* fix) { return utils::strmatch(fix->style, "^gcmc") || utils::strmatch(fix->style, "^widom"); }
}

PairTesseral::PairTesseral(LAMMPS* lmp) : Pair(lmp) {
  if (lmp->num_ver != TESSERAL_LAMMPS_NUMBER)  // its classes may differ; LAMMPS only warns
    error->all(FLERR, "pair_style tesseral was built for LAMMPS {}, this is {}: run train-potential lammps build",
               TESSERAL_LAMMPS_NUMBER, lmp->num_ver);
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_NOTAVAIL;
  comm_forward = comm_reverse = doubles_per_message;
  exchange_ = {[](void* pair, void* rows, int64_t size) { static_cast<PairTesseral*>(pair)->send(true, rows, size); },
               [](void* pair, void* rows, int64_t size) { static_cast<PairTesseral*>(pair)->send(false, rows, size); },
               this};
}

PairTesseral::~PairTesseral() {
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairTesseral::settings(int narg, char** arg) {
  gpu_ = portable_ = relative_ = false;
  for (int n = 0; n < narg; n++) {
    const std::string word = arg[n];
    if (word == "gpu") gpu_ = true;
    else if (word == "portable") portable_ = true;
    else if (word == "relative") relative_ = true;
    else error->all(FLERR, "pair_style tesseral takes no arguments but 'gpu', 'portable' and 'relative'; found '{}'", word);
  }
  if (gpu_ && portable_)
    error->all(FLERR, "pair_style tesseral runs either on a GPU or with the portable engine: leave out 'gpu' or 'portable'");
}

void PairTesseral::coeff(int narg, char** arg) {
  const int types = atom->ntypes;
  if (narg < 3 || std::string(arg[0]) != "*" || std::string(arg[1]) != "*")
    error->all(FLERR, "pair_style tesseral needs: pair_coeff * * MODEL.pt and an element for each of {} atom types", types);
  if (narg != 3 + types)
    error->all(FLERR, "pair_coeff names {} elements, but there are {} atom types: give an element for each, in the order of the types",
               narg - 3, types);
  const std::string path = arg[2];
  load(path);
  species_of_type_.assign(types + 1, -1);
  for (int type = 1; type <= types; type++) {
    const auto& known = model_->elements;
    const auto found = std::find(known.begin(), known.end(), arg[2 + type]);
    if (found == known.end()) {
      std::string names;
      for (const std::string& name : known) names += " " + name;
      error->all(FLERR, "atom type {} is '{}', which {} does not support; it supports{}", type, arg[2 + type], path, names);
    }
    species_of_type_[type] = found - known.begin();
  }
  find_vacuum_energies();
  builds_ = -1;
  if (!allocated) {
    memory->create(setflag, types + 1, types + 1, "pair:setflag");
    memory->create(cutsq, types + 1, types + 1, "pair:cutsq");
    allocated = 1;
  }
  for (int i = 1; i <= types; i++)
    for (int j = 1; j <= types; j++) setflag[i][j] = 1, cutsq[i][j] = model_->cutoff * model_->cutoff;
}

// Reads the model and tests it on every process. All stop if one fails: on a cluster the file may be
// missing, or the processor may differ, on some machines only.
void PairTesseral::load(const std::string& path) {
  std::string problem;
  const int place = gpu_ ? place_on_machine() : 0;
  try {
    model_ = std::make_unique<tesseral::ModelFile>(path);
    engine_ = engine_for(path, place);
    const double deviation = model_->deviation(*engine_);
    if (!(deviation <= 1))
      problem = fmt::format("it gives different energies and forces here than when it was exported ({:.1e} times the "
                            "allowed deviation): export it again, or rebuild the plugin", deviation);
  } catch (const std::exception& error) {
    problem = error.what();
  }
  // The first process with a problem sends it to all others.
  int failed = problem.empty() ? comm->nprocs : comm->me, first;
  MPI_Allreduce(&failed, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  problem.resize(2000, '\0');
  MPI_Bcast(problem.data(), int(problem.size()), MPI_CHAR, first, world);
  error->all(FLERR, "{} cannot be used: {}", path, problem.c_str());
}

std::unique_ptr<tesseral::Engine> PairTesseral::engine_for(const std::string& path, int place) const {
  if (gpu_) return tesseral::gpu_engine(model_->gpu, place);
  const bool compiled = !portable_ && !model_->weights.empty();
  return compiled ? tesseral::compiled_engine(model_->weights) : tesseral::torch_engine(path);
}

// Number of this process among those of its machine, which take the GPUs in turn.
int PairTesseral::place_on_machine() const {
  MPI_Comm machine;
  int place;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &place);
  MPI_Comm_free(&machine);
  return place + universe->iworld * comm->nprocs;
}

// Energies of single atoms, by species, from which the keyword relative counts.
void PairTesseral::find_vacuum_energies() {
  const size_t n = model_->elements.size();
  vacuum_.assign(n, 0);
  if (!relative_) return;
  std::vector<int64_t> species(n);
  for (size_t k = 0; k < n; k++) species[k] = k;
  std::vector<double> forces(3 * n), virials(9 * n);
  engine_->compute({species.data(), nullptr, nullptr, nullptr, int64_t(n), 0, 1, vacuum_.data(), forces.data(),
                    virials.data(), int64_t(n), nullptr, nullptr});
}

void PairTesseral::init_style() {
  for (const Compute* compute : modify->get_compute_list())
    if (utils::strmatch(compute->style, "^heat/flux"))
      error->all(FLERR, "compute {} is not right for pair_style tesseral, in which the energy of an atom depends on atoms "
                 "beyond the cutoff: use get_heat_flux of TesseralCalculator in Python", compute->style);
  for (const Fix* fix : modify->get_fix_list())
    if (inserts_atoms(fix) && !relative_)
      error->all(FLERR, "fix {} compares energies of different numbers of atoms: use 'pair_style tesseral relative', which "
                 "counts energies and chemical potentials from atoms in vacuum", fix->style);
  if (std::string(update->unit_style) != "metal")
    error->all(FLERR, "pair_style tesseral uses eV and Å: use 'units metal', not 'units {}'", update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "pair_style tesseral needs 'newton on'");
  for (int n = 1; n <= 3 && atom->molecular != Atom::ATOMIC; n++)
    if (force->special_lj[n] == 0 && force->special_coul[n] == 0)
      error->all(FLERR, "bonded atoms would not see each other: set 'special_bonds lj/coul 1 1 1' for pair_style tesseral");
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairTesseral::init_one(int, int) { return model_->cutoff; }

void PairTesseral::setup() {
  if (list->listskip) error->all(FLERR, "{}", not_all);
  const auto& fixes = modify->get_fix_list();  // those that insert atoms exclude an atom to try without it
  if (neighbor->exclude && comm->me == 0 && std::none_of(fixes.begin(), fixes.end(), inserts_atoms))
    error->warning(FLERR, "pair_style tesseral does not see the neighbors that neigh_modify exclude removes; "
                   "energies and forces are computed without them");
  if (comm->get_comm_cutoff() < model_->cutoff)
    error->all(FLERR, "ghost atoms reach {} Å, but the model needs {} Å: increase comm_modify cutoff",
               comm->get_comm_cutoff(), model_->cutoff);
}

void PairTesseral::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const bool alone = comm->nprocs == 1;
  const int64_t owned = atom->nlocal, all = alone ? owned : owned + atom->nghost;
  if (alone) find_owners();
  const bool new_edges = find_edges();
  species_.resize(all);
  for (int64_t i = 0; i < all; i++) species_[i] = species_of_type_[atom->type[i]];
  energies_.resize(owned), virials_.resize(9 * owned), forces_.resize(3 * all);
  uncertainties_.resize(knows_uncertainty() ? owned : 0);
  const bool keeps = engine_->keeps_edges();
  const bool exchanges = !alone && model_->layers > 1;
  try {
    const tesseral_graph graph = {species_.data(), vectors_.data(), senders_.data(), receivers_.data(), all,
                                  int64_t(senders_.size()), comm->nthreads, energies_.data(), forces_.data(),
                                  keeps && !vflag_either ? nullptr : virials_.data(), owned,
                                  exchanges ? &exchange_ : nullptr,
                                  knows_uncertainty() ? uncertainties_.data() : nullptr};
    const int64_t number = owned + atom->nghost;
    if (keeps) engine_->compute_at(graph, {number ? atom->x[0] : nullptr, number, places_.data(), new_edges});
    else engine_->compute(graph);
  } catch (const LAMMPSException&) {
    throw;
  } catch (const std::exception& problem) {
    error->one(FLERR, "pair_style tesseral: {}", problem.what());
  }
  add_results(all);
}

// Owners of the ghosts, found through LAMMPS's communication: a message to all ghosts with the index of their atom.
void PairTesseral::find_owners() {
  const size_t all = atom->nlocal + atom->nghost;
  if (neighbor->ago != 0 && owner_.size() == all) return;
  owner_.resize(all);
  for (int i = 0; i < atom->nlocal; i++) owner_[i] = i;
  send(true, owner_.data(), sizeof(double));
}

// Edges shorter than the cutoff, sorted by receiver; all of the neighbour list, without vectors, for engines that keep
// them. Returns whether they are new.
bool PairTesseral::find_edges() {
  const bool keeps = engine_->keeps_edges();
  const double limit = model_->cutoff * model_->cutoff;
  if (list->inum != atom->nlocal) error->one(FLERR, "{}", not_all);
  if (keeps && neighbor->ago != 0 && neighbor->ncalls == builds_) return false;
  builds_ = neighbor->ncalls;
  senders_.clear(), receivers_.clear(), vectors_.clear(), places_.clear();
  double** x = atom->x;
  for (int i = 0; i < atom->nlocal; i++) {
    const int* neighbors = list->firstneigh[i];
    for (int n = 0; n < list->numneigh[i]; n++) {
      const int j = neighbors[n] & NEIGHMASK;
      if (keeps) {
        senders_.push_back(comm->nprocs == 1 ? int64_t(owner_[j]) : j);
        receivers_.push_back(i), places_.push_back(j);
        continue;
      }
      const double v[] = {x[i][0] - x[j][0], x[i][1] - x[j][1], x[i][2] - x[j][2]};
      if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= limit) continue;
      senders_.push_back(comm->nprocs == 1 ? int64_t(owner_[j]) : j);
      receivers_.push_back(i);
      vectors_.insert(vectors_.end(), v, v + 3);
    }
  }
  return true;
}

void PairTesseral::add_results(const int64_t all) {
  for (int64_t i = 0; i < all; i++)
    for (int a = 0; a < 3; a++) atom->f[i][a] += forces_[3 * i + a];
  static constexpr int voigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {0, 1}, {0, 2}, {1, 2}};  // LAMMPS's order
  double energy = 0;
  for (int i = 0; i < atom->nlocal; i++) {
    const double own = energies_[i] - vacuum_[species_[i]];
    energy += own;
    if (eflag_atom) eatom[i] += own;
    if (!vflag_either) continue;
    for (int n = 0; n < 6; n++) {
      const int a = voigt[n][0], b = voigt[n][1];
      const double part = 0.5 * (virials_[9 * i + 3 * a + b] + virials_[9 * i + 3 * b + a]);
      if (vflag_global) virial[n] += part;
      if (vflag_atom) vatom[i][n] += part;
    }
  }
  if (!std::isfinite(energy)) error->one(FLERR, "pair_style tesseral: the energy is not finite; atoms are probably far too close");
  if (eflag_global) eng_vdwl += energy;
}

double PairTesseral::memory_usage() {
  double bytes = Pair::memory_usage() + (engine_ ? engine_->bytes() : 0);
  bytes += double(senders_.capacity() + receivers_.capacity() + places_.capacity() + vectors_.capacity()) * 8;
  return bytes + double(forces_.capacity() + virials_.capacity() + species_.capacity()) * 8;
}

void PairTesseral::send(bool forwards, void* rows, int64_t row_bytes) {
  for (int64_t offset = 0; offset < row_bytes; offset += 8 * doubles_per_message) {
    const int64_t width = std::min<int64_t>(row_bytes - offset, 8 * doubles_per_message);
    message_ = {static_cast<char*>(rows), row_bytes, offset, width, !model_ || model_->single};
    if (forwards) comm->forward_comm(this, message_.doubles());
    else comm->reverse_comm(this, message_.doubles());
  }
}

int PairTesseral::pack_forward_comm(int n, int* atoms, double* buffer, int, int*) {
  for (int k = 0; k < n; k++) std::memcpy(buffer + k * message_.doubles(), message_.at(atoms[k]), message_.width);
  return n * message_.doubles();
}

void PairTesseral::unpack_forward_comm(int n, int first, double* buffer) {
  for (int k = 0; k < n; k++) std::memcpy(message_.at(first + k), buffer + k * message_.doubles(), message_.width);
}

int PairTesseral::pack_reverse_comm(int n, int first, double* buffer) {
  for (int k = 0; k < n; k++) std::memcpy(buffer + k * message_.doubles(), message_.at(first + k), message_.width);
  return n * message_.doubles();
}

namespace {
template <class T> void add(void* sums, const void* values, int64_t bytes) {
  for (int64_t n = 0; n < bytes / int64_t(sizeof(T)); n++) static_cast<T*>(sums)[n] += static_cast<const T*>(values)[n];
}
}  // namespace

void PairTesseral::unpack_reverse_comm(int n, int* atoms, double* buffer) {
  for (int k = 0; k < n; k++) {
    const double* values = buffer + k * message_.doubles();
    if (message_.single) add<float>(message_.at(atoms[k]), values, message_.width);
    else add<double>(message_.at(atoms[k]), values, message_.width);
  }
}
