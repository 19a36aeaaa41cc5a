#include "matching/bent_surface.h"
#include "matching/refine_patch.h"
#include "matching/vote_patches.h"
#include "python/arrays.h"

namespace inpaint {
namespace {

// Sets what NearestPatchArgs and RefinePatchArgs have in common. Returns the number of query
// patches of the whole batch.
template <class Args, class T>
int64_t set_images(Args& args,
                   const Array<T>& query,
                   const Array<T>& key,
                   const OptionalBytes& valid,
                   const OptionalBytes& where,
                   int64_t patch,
                   int64_t stride,
                   int threads) {
  args.query = image_view<T>(query);
  args.key = image_view<T>(key);
  require(query.shape(0) == key.shape(0) && query.shape(1) == key.shape(1), "query and key differ");
  require(patch >= 1 && stride >= 1 && threads >= 1, "sizes must be positive");
  args.batch = query.shape(0);
  args.channels = query.shape(1);
  args.query_height = query.shape(2);
  args.query_width = query.shape(3);
  args.key_height = key.shape(2);
  args.key_width = key.shape(3);
  args.patch = patch;
  args.threads = threads;
  const int64_t rows = PatchAxis{args.query_height - patch, stride}.count();
  const int64_t columns = PatchAxis{args.query_width - patch, stride}.count();
  args.valid = mask_view(valid, args.batch, args.key_height, args.key_width);
  args.where = mask_view(where, args.batch, rows, columns);
  return args.batch * rows * columns;
}

template <class T>
void call_nearest_patch(const Array<T>& query,
                        const Array<T>& key,
                        const OptionalBytes& valid,
                        const OptionalBytes& where,
                        int64_t patch,
                        int64_t stride,
                        int64_t key_stride,
                        bool cosine,
                        Array<int64_t> index,
                        std::optional<Array<T>> score,
                        int threads) {
  NearestPatchArgs<T> args;
  require(key_stride >= 1, "sizes must be positive");
  const int64_t size = set_images(args, query, key, valid, where, patch, stride, threads);
  args.stride = stride;
  args.key_stride = key_stride;
  args.cosine = cosine;
  args.index = output<int64_t>(index, size);
  args.score = score ? output<T>(*score, size) : nullptr;
  auto* kernel = INPAINT_PICK(nearest_patch<T>);
  py::gil_scoped_release release;
  kernel(args);
}

template <class T>
void call_refine_patch(const Array<T>& query,
                       const Array<T>& key,
                       const Array<int64_t>& guess,
                       const OptionalBytes& valid,
                       const OptionalBytes& where,
                       int64_t patch,
                       int64_t radius,
                       int64_t reach,
                       Array<int64_t> index,
                       Array<T> distance,
                       int threads) {
  RefinePatchArgs<T> args;
  require(radius >= 0 && reach >= 1, "sizes must be positive");
  const int64_t size = set_images(args, query, key, valid, where, patch, 1, threads);
  args.radius = radius;
  args.reach = reach;
  require(guess.is_packed() && guess.size() == size, "guess must be packed and fit");
  args.guess = guess.data();
  args.index = output<int64_t>(index, size);
  args.distance = output<T>(distance, size);
  auto* kernel = INPAINT_PICK(refine_patch<T>);
  py::gil_scoped_release release;
  kernel(args);
}

void call_vote_patches(const Array<float>& features,
                       const OptionalBytes& hole,
                       const Array<int64_t>& index,
                       const Array<float>& distance,
                       const Array<float>& penalty,
                       int64_t patch,
                       bool best,
                       Array<float> out,
                       int threads) {
  VotePatchesArgs args;
  args.features = image_view<float>(features);
  require(features.shape(0) == 1 && patch >= 1 && threads >= 1, "sizes must be positive");
  args.channels = features.shape(1);
  args.features_height = features.shape(2);
  args.features_width = features.shape(3);
  require(out.ndim() == 4 && out.shape(0) == 1 && out.shape(1) == args.channels, "out must fit");
  args.height = out.shape(2);
  args.width = out.shape(3);
  require(patch <= args.height && patch <= args.width, "patch must fit");
  require(patch <= args.features_height && patch <= args.features_width, "patch must fit");
  args.patch = patch;
  args.best = best;
  args.threads = threads;
  const int64_t size = (args.height - patch + 1) * (args.width - patch + 1);
  args.hole = mask_view(hole, 1, args.height, args.width).data;
  require(args.hole != nullptr, "hole must be given");
  require(index.is_packed() && index.size() == size, "index must be packed and fit");
  require(distance.is_packed() && distance.size() == size, "distance must be packed and fit");
  require(penalty.is_packed() && penalty.size() == size, "penalty must be packed and fit");
  args.index = index.data();
  args.distance = distance.data();
  args.penalty = penalty.data();
  const int64_t keys = (args.features_height - patch + 1) * (args.features_width - patch + 1);
  for (int64_t i = 0; i < size; ++i) require(args.index[i] < keys, "index points beyond the image");
  args.out = output<float>(out, args.channels * args.height * args.width);
  auto* kernel = INPAINT_PICK(vote_patches);
  py::gil_scoped_release release;
  kernel(args);
}

void call_bent_surface(Array<float> surface,
                       const OptionalBytes& free,
                       const OptionalBytes& inside,
                       double tension,
                       double low,
                       double high,
                       int64_t steps,
                       int threads) {
  BentSurfaceArgs args;
  require(surface.ndim() == 4 && surface.shape(0) == 1 && steps >= 0 && threads >= 1, "sizes");
  args.channels = surface.shape(1);
  args.height = surface.shape(2);
  args.width = surface.shape(3);
  args.free = mask_view(free, 1, args.height, args.width).data;
  args.inside = mask_view(inside, 1, args.height, args.width).data;
  require(args.free != nullptr && args.inside != nullptr, "masks must be given");
  args.tension = float(tension);
  args.low = float(low);
  args.high = float(high);
  args.steps = steps;
  args.surface = output<float>(surface, args.channels * args.height * args.width);
  args.threads = threads;
  auto* kernel = INPAINT_PICK(bent_surface);
  py::gil_scoped_release release;
  kernel(args);
}

template <class T>
void bind_matching_type(py::module_& m) {
  m.def("nearest_patch",
        &call_nearest_patch<T>,
        py::arg("query").noconvert(),
        py::arg("key").noconvert(),
        py::arg("valid"),
        py::arg("where"),
        py::arg("patch"),
        py::arg("stride"),
        py::arg("key_stride"),
        py::arg("cosine"),
        py::arg("index"),
        py::arg("score"),
        py::arg("threads"));
  m.def("refine_patch",
        &call_refine_patch<T>,
        py::arg("query").noconvert(),
        py::arg("key").noconvert(),
        py::arg("guess").noconvert(),
        py::arg("valid"),
        py::arg("where"),
        py::arg("patch"),
        py::arg("radius"),
        py::arg("reach"),
        py::arg("index"),
        py::arg("distance"),
        py::arg("threads"));
}

}  // namespace

void bind_matching(py::module_& m) {
  bind_matching_type<float>(m);
  bind_matching_type<double>(m);
  m.def("bent_surface",
        &call_bent_surface,
        py::arg("surface").noconvert(),
        py::arg("free"),
        py::arg("inside"),
        py::arg("tension"),
        py::arg("low"),
        py::arg("high"),
        py::arg("steps"),
        py::arg("threads"));
  m.def("vote_patches",
        &call_vote_patches,
        py::arg("features").noconvert(),
        py::arg("hole"),
        py::arg("index").noconvert(),
        py::arg("distance").noconvert(),
        py::arg("penalty").noconvert(),
        py::arg("patch"),
        py::arg("best"),
        py::arg("out"),
        py::arg("threads"));
}

}  // namespace inpaint
