// Python module: names, array checks, release of the interpreter lock; no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cpu.h"
#include "isa_table.h"

namespace py = pybind11;

namespace inpaint {
namespace {

const IsaTable& table() {
#if defined(INPAINT_X86)
  switch (instruction_set()) {
    case Isa::kAvx512:
      return avx512::isa_table();
    case Isa::kAvx2:
      return avx2::isa_table();
    case Isa::kBaseline:
      break;
  }
#endif
  return baseline::isa_table();
}

void require(bool holds, const char* rule) {
  if (!holds) throw std::invalid_argument(rule);
}

template <class T>
ImageView<T> image_view(const py::array& array) {
  require(array.ndim() == 4, "image must have four dimensions");
  require(py::isinstance<py::array_t<T>>(array), "image has another type than its function");
  const auto stride = [&](int axis) { return int64_t(array.strides(axis)) / int64_t(sizeof(T)); };
  return {static_cast<const T*>(array.data()), stride(0), stride(1), stride(2), stride(3)};
}

template <class T>
bool is_packed(const py::array& array) {
  return py::isinstance<py::array_t<T, py::array::c_style>>(array);
}

MaskView mask_view(const py::object& object, int64_t batch, int64_t height, int64_t width) {
  if (object.is_none()) return {nullptr, 0};
  const py::array array = object.cast<py::array>();
  require(is_packed<uint8_t>(array) && array.ndim() == 3, "mask must be packed bytes (N, H, W)");
  require(array.shape(0) == 1 || array.shape(0) == batch, "mask batch");
  require(array.shape(1) == height && array.shape(2) == width, "mask size");
  return {static_cast<const uint8_t*>(array.data()), array.shape(0) == 1 ? 0 : height * width};
}

template <class T>
T* output(py::array& array, int64_t size) {
  require(is_packed<T>(array) && array.size() == size, "output must be packed and fit");
  return static_cast<T*>(array.mutable_data());
}

template <class T>
void nearest_patch(const py::array& query,
                   const py::array& key,
                   const py::object& valid,
                   const py::object& where,
                   int64_t patch,
                   int64_t stride,
                   int64_t key_stride,
                   bool cosine,
                   py::array index,
                   const py::object& score,
                   int threads,
                   void (*kernel)(const NearestPatchArgs<T>&)) {
  NearestPatchArgs<T> args;
  args.query = image_view<T>(query);
  args.key = image_view<T>(key);
  require(query.shape(0) == key.shape(0) && query.shape(1) == key.shape(1), "query and key differ");
  require(patch >= 1 && stride >= 1 && key_stride >= 1 && threads >= 1, "sizes must be positive");
  args.batch = query.shape(0);
  args.channels = query.shape(1);
  args.query_height = query.shape(2);
  args.query_width = query.shape(3);
  args.key_height = key.shape(2);
  args.key_width = key.shape(3);
  args.patch = patch;
  args.stride = stride;
  args.key_stride = key_stride;
  args.cosine = cosine;
  args.threads = threads;
  const int64_t rows = PatchAxis{args.query_height - patch, stride}.count();
  const int64_t columns = PatchAxis{args.query_width - patch, stride}.count();
  args.valid = mask_view(valid, args.batch, args.key_height, args.key_width);
  args.where = mask_view(where, args.batch, rows, columns);
  args.index = output<int64_t>(index, args.batch * rows * columns);
  args.score = nullptr;
  if (!score.is_none()) {
    py::array array = score.cast<py::array>();
    args.score = output<T>(array, args.batch * rows * columns);
  }
  py::gil_scoped_release release;
  kernel(args);
}

void nearest_patch_any(const py::array& query,
                       const py::array& key,
                       const py::object& valid,
                       const py::object& where,
                       int64_t patch,
                       int64_t stride,
                       int64_t key_stride,
                       bool cosine,
                       const py::array& index,
                       const py::object& score,
                       int threads) {
  const auto call = [&](auto kernel) {
    nearest_patch(
        query, key, valid, where, patch, stride, key_stride, cosine, index, score, threads, kernel);
  };
  if (py::isinstance<py::array_t<double>>(query)) {
    call(table().nearest_patch_f64);
  } else {
    call(table().nearest_patch_f32);
  }
}

template <class T>
void refine_patch(const py::array& query,
                  const py::array& key,
                  const py::array& guess,
                  const py::object& valid,
                  const py::object& where,
                  int64_t patch,
                  int64_t radius,
                  int64_t reach,
                  py::array index,
                  py::array distance,
                  int threads,
                  void (*kernel)(const RefinePatchArgs<T>&)) {
  RefinePatchArgs<T> args;
  args.query = image_view<T>(query);
  args.key = image_view<T>(key);
  require(query.shape(0) == key.shape(0) && query.shape(1) == key.shape(1), "query and key differ");
  require(patch >= 1 && radius >= 0 && reach >= 1 && threads >= 1, "sizes must be positive");
  args.batch = query.shape(0);
  args.channels = query.shape(1);
  args.query_height = query.shape(2);
  args.query_width = query.shape(3);
  args.key_height = key.shape(2);
  args.key_width = key.shape(3);
  args.patch = patch;
  args.radius = radius;
  args.reach = reach;
  args.threads = threads;
  const int64_t rows = PatchAxis{args.query_height - patch, 1}.count();
  const int64_t columns = PatchAxis{args.query_width - patch, 1}.count();
  const int64_t size = args.batch * rows * columns;
  require(is_packed<int64_t>(guess) && guess.size() == size, "guess must be packed and fit");
  args.guess = static_cast<const int64_t*>(guess.data());
  args.valid = mask_view(valid, args.batch, args.key_height, args.key_width);
  args.where = mask_view(where, args.batch, rows, columns);
  args.index = output<int64_t>(index, size);
  args.distance = output<T>(distance, size);
  py::gil_scoped_release release;
  kernel(args);
}

void refine_patch_any(const py::array& query,
                      const py::array& key,
                      const py::array& guess,
                      const py::object& valid,
                      const py::object& where,
                      int64_t patch,
                      int64_t radius,
                      int64_t reach,
                      const py::array& index,
                      const py::array& distance,
                      int threads) {
  const auto call = [&](auto kernel) {
    refine_patch(
        query, key, guess, valid, where, patch, radius, reach, index, distance, threads, kernel);
  };
  if (py::isinstance<py::array_t<double>>(query)) {
    call(table().refine_patch_f64);
  } else {
    call(table().refine_patch_f32);
  }
}

template <class T>
void positions(const py::array& in,
               const py::array& index,
               py::array out,
               bool channels_last,
               double scale,
               int threads,
               void (*kernel)(const PositionsArgs<T>&)) {
  // Packed storage as (N, P, C) where channels are last and (N, C, P) otherwise.
  require(is_packed<T>(in) && in.ndim() == 3, "input must be packed, with three dimensions");
  require(out.ndim() == 3 && out.shape(0) == in.shape(0), "output must match the input's batch");
  require(is_packed<int64_t>(index) && index.ndim() == 2 && index.shape(0) == in.shape(0), "index");
  const int p = channels_last ? 1 : 2, c = channels_last ? 2 : 1;
  require(out.shape(c) == in.shape(c), "channels differ");
  PositionsArgs<T> args;
  args.batch = in.shape(0);
  args.channels = in.shape(c);
  args.in_positions = in.shape(p);
  args.out_positions = out.shape(p);
  args.in = static_cast<const T*>(in.data());
  args.out = output<T>(out, out.size());
  args.index = static_cast<const int64_t*>(index.data());
  args.channels_last = channels_last;
  args.scale = scale;
  args.threads = threads;
  py::gil_scoped_release release;
  kernel(args);
}

// An index beyond the places there are would read or write foreign memory.
void check_index(const py::array& index, int64_t positions, int64_t places) {
  require(is_packed<int64_t>(index) && index.ndim() == 2, "index must be packed (N, P)");
  require(index.shape(1) == positions, "index must have one entry for each position");
  const int64_t* values = static_cast<const int64_t*>(index.data());
  for (int64_t i = 0; i < index.size(); ++i)
    require(values[i] < places, "index points beyond the image");
}

void gather_positions(const py::array& in,
                      const py::array& index,
                      const py::array& out,
                      bool channels_last,
                      int threads) {
  require(in.ndim() == 3 && out.ndim() == 3, "arrays must have three dimensions");
  const int p = channels_last ? 1 : 2;
  check_index(index, out.shape(p), in.shape(p));
  switch (in.itemsize()) {
    case 2:
      return positions(in, index, out, channels_last, 1.0, threads, table().gather_positions_u16);
    case 4:
      return positions(in, index, out, channels_last, 1.0, threads, table().gather_positions_f32);
    default:
      return positions(in, index, out, channels_last, 1.0, threads, table().gather_positions_f64);
  }
}

void scatter_positions(const py::array& in,
                       const py::array& index,
                       const py::array& out,
                       bool channels_last,
                       double scale,
                       int threads) {
  require(in.ndim() == 3 && out.ndim() == 3, "arrays must have three dimensions");
  const int p = channels_last ? 1 : 2;
  check_index(index, in.shape(p), out.shape(p));
  if (in.itemsize() == 8) {
    positions(in, index, out, channels_last, scale, threads, table().scatter_positions_f64);
  } else {
    positions(in, index, out, channels_last, scale, threads, table().scatter_positions_f32);
  }
}

}  // namespace
}  // namespace inpaint

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of inpaint_ops over numpy arrays; called through inpaint_ops.ops only";
  m.def("instruction_sets", &inpaint::instruction_sets);
  m.def("instruction_set", &inpaint::instruction_set_name);
  m.def("set_instruction_set", &inpaint::set_instruction_set, py::arg("name"));
#ifdef _OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.def("nearest_patch",
        &inpaint::nearest_patch_any,
        py::arg("query"),
        py::arg("key"),
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
        &inpaint::refine_patch_any,
        py::arg("query"),
        py::arg("key"),
        py::arg("guess"),
        py::arg("valid"),
        py::arg("where"),
        py::arg("patch"),
        py::arg("radius"),
        py::arg("reach"),
        py::arg("index"),
        py::arg("distance"),
        py::arg("threads"));
  m.def("gather_positions",
        &inpaint::gather_positions,
        py::arg("input"),
        py::arg("index"),
        py::arg("out"),
        py::arg("channels_last"),
        py::arg("threads"));
  m.def("scatter_positions",
        &inpaint::scatter_positions,
        py::arg("input"),
        py::arg("index"),
        py::arg("out"),
        py::arg("channels_last"),
        py::arg("scale"),
        py::arg("threads"));
}
