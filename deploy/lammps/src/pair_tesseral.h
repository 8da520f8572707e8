// pair_style tesseral [gpu] [portable] [relative]
// pair_coeff * * model.pt ELEMENT …      one element for each atom type
#pragma once
#include <memory>
#include <vector>

#include "engine.h"
#include "pair.h"

namespace LAMMPS_NS {

class PairTesseral : public Pair {
 public:
  explicit PairTesseral(LAMMPS* lmp);
  ~PairTesseral() override;
  void settings(int, char**) override;
  void coeff(int, char**) override;
  void init_style() override;
  double init_one(int, int) override;
  void setup() override;
  void compute(int, int) override;
  double memory_usage() override;

  // Expected lengths of the force errors of the atoms of this process at the last step, eV/Å; none if
  // the model does not know them.
  const std::vector<double>& uncertainties() const { return uncertainties_; }
  bool knows_uncertainty() const { return engine_ && engine_->knows_uncertainty(); }

  // Sends rows of values of atoms to their ghosts and back.
  int pack_forward_comm(int, int*, double*, int, int*) override;
  void unpack_forward_comm(int, int, double*) override;
  int pack_reverse_comm(int, int, double*) override;
  void unpack_reverse_comm(int, int*, double*) override;

 private:
  // Part of each atom's row that one message contains: `width` bytes at `offset`.
  struct Message {
    char* rows = nullptr;
    int64_t row_bytes = 0, offset = 0, width = 0;
    bool single = true;
    int doubles() const { return int((width + 7) / 8); }
    char* at(int atom) const { return rows + atom * row_bytes + offset; }
  };
  Message message_;
  void send(bool forwards, void* rows, int64_t row_bytes);
  tesseral_exchange exchange_;

  bool gpu_ = false, portable_ = false, relative_ = false;
  std::unique_ptr<tesseral::ModelFile> model_;
  std::unique_ptr<tesseral::Engine> engine_;
  std::vector<int64_t> species_of_type_;
  std::vector<double> vacuum_;  // energies of single atoms that are subtracted, by species

  std::vector<double> owner_;  // owner of each atom, on one process
  std::vector<int64_t> species_, senders_, receivers_, places_;
  int64_t builds_ = -1;  // number of neighbour lists when the edges were found
  std::vector<double> vectors_, energies_, forces_, virials_, uncertainties_;
  void load(const std::string& path);
  std::unique_ptr<tesseral::Engine> engine_for(const std::string& path, int place) const;
  int place_on_machine() const;
  void find_vacuum_energies();
  void find_owners();
  bool find_edges();
  void add_results(const int64_t all);
};

}  // namespace LAMMPS_NS
