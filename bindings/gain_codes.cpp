// lutc._runtime.GainCodes: the gain form's encode, what its codes say of the input, and gradients through both, in
// float32 for learning (lutc.learn.native). Plain loops over blocks of positions, which the compiler vectorises.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace py = pybind11;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LUTC_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define LUTC_CLONES
#endif
#define LUTC_INLINE inline __attribute__((always_inline))

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

constexpr int kBlock = 64;     // positions at a time
constexpr int kMaxWidth = 16;  // features of a sub-vector
constexpr int kMaxEntries = 16;

// A tensor [batch, features, positions] with any strides, in elements.
template <class T>
struct View {
  T* data;
  int64_t batch, feature, position;

  T* at(int64_t b, int64_t d, int64_t p) const { return data + b * batch + d * feature + p * position; }
};

// What all calls share; pointers into arrays that the caller keeps.
struct Codebooks {
  int64_t books, entries, width, batch, features, positions;
  const int32_t* groups;    // [C, V], -1 in empty slots
  const float* offset;      // [D]
  const float* inv_scale;   // [D]
  const float* directions;  // [C, K, V], integers
  const float* gain_mul;    // [C]
  float limit;
  float through;  // share of the gradient of the input that passes as if it had not been encoded
};

using Block = float[kMaxWidth][kBlock];

// Quantised inputs of one sub-vector at `count` positions; zeros in empty slots and past the end.
LUTC_INLINE void load(const Codebooks& k, const View<const float>& x, int64_t b, int64_t c, int64_t p, int count,
                      Block& q, Block* inside) {
  for (int64_t v = 0; v < k.width; ++v) {
    const int32_t d = k.groups[c * k.width + v];
    float* to = q[v];
    for (int i = 0; i < kBlock; ++i) to[i] = 0;
    if (d < 0) continue;
    const float offset = k.offset[d], inverse = k.inv_scale[d];
    const float* from = x.at(b, d, p);
    if (x.position == 1)
      for (int i = 0; i < count; ++i) to[i] = (from[i] - offset) * inverse;
    else
      for (int i = 0; i < count; ++i) to[i] = (from[i * x.position] - offset) * inverse;
    if (inside != nullptr)
      for (int i = 0; i < kBlock; ++i) (*inside)[v][i] = std::fabs(to[i]) <= 127.0f ? inverse : 0.0f;
    for (int i = 0; i < kBlock; ++i) to[i] = std::nearbyintf(std::min(std::max(to[i], -127.0f), 127.0f));
  }
}

template <int kWidth>
LUTC_INLINE void best(const Codebooks& k, int64_t c, const Block& q, float* score, int32_t* code) {
  const int64_t width = kWidth > 0 ? kWidth : k.width;
  float largest[kBlock];
  for (int i = 0; i < kBlock; ++i) largest[i] = -1.0f, score[i] = 0.0f, code[i] = 0;  // what NaN keeps
  for (int64_t e = 0; e < k.entries; ++e) {
    const float* direction = k.directions + (c * k.entries + e) * width;
    float s[kBlock];
    for (int i = 0; i < kBlock; ++i) s[i] = direction[0] * q[0][i];
    for (int64_t v = 1; v < width; ++v)
      for (int i = 0; i < kBlock; ++i) s[i] += direction[v] * q[v][i];
    for (int i = 0; i < kBlock; ++i) {
      const float size = std::fabs(s[i]);
      const bool wins = size > largest[i];  // the first of equals, as everywhere
      largest[i] = wins ? size : largest[i];
      score[i] = wins ? s[i] : score[i];
      code[i] = wins ? static_cast<int32_t>(e) : code[i];
    }
  }
}

LUTC_CLONES void encode(const Codebooks& k, const View<const float>& x, uint8_t* codes, float* scores) {
  for (int64_t b = 0; b < k.batch; ++b)
    for (int64_t c = 0; c < k.books; ++c)
      for (int64_t p = 0; p < k.positions; p += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, k.positions - p));
        Block q;
        float score[kBlock];
        int32_t code[kBlock];
        load(k, x, b, c, p, count, q, nullptr);
        switch (k.width) {
          case 2:
            best<2>(k, c, q, score, code);
            break;
          case 3:
            best<3>(k, c, q, score, code);
            break;
          case 4:
            best<4>(k, c, q, score, code);
            break;
          case 5:
            best<5>(k, c, q, score, code);
            break;
          case 6:
            best<6>(k, c, q, score, code);
            break;
          case 8:
            best<8>(k, c, q, score, code);
            break;
          default:
            best<0>(k, c, q, score, code);
        }
        const int64_t place = (b * k.books + c) * k.positions + p;
        for (int i = 0; i < count; ++i) codes[place + i] = static_cast<uint8_t>(code[i]);
        for (int i = 0; i < count; ++i) scores[place + i] = score[i];
      }
}

#if defined(__GNUC__) && !defined(__clang__)
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Indices __attribute__((vector_size(64)));
#endif

// Feature v of the entries [K, V] that a block's codes name; codes are readable to the block's end.
LUTC_INLINE void pick(const float* table, int64_t entries, int64_t width, int64_t v, const int32_t* code, float* to) {
  alignas(64) float of[kMaxEntries] = {};
  for (int64_t e = 0; e < entries; ++e) of[e] = table[e * width + v];
#if defined(__GNUC__) && !defined(__clang__)
  Lanes all;
  std::memcpy(&all, of, sizeof all);
  for (int i = 0; i < kBlock; i += 16) {
    Indices index;
    std::memcpy(&index, code + i, sizeof index);
    const Lanes found = __builtin_shuffle(all, index);
    std::memcpy(to + i, &found, sizeof found);
  }
#else
  for (int i = 0; i < kBlock; ++i) to[i] = of[code[i]];
#endif
}

// A block's codes and scores; zeros past the end.
LUTC_INLINE void fetch(const uint8_t* codes, const float* scores, int count, int32_t* code, float* score) {
  for (int i = 0; i < kBlock; ++i) code[i] = 0, score[i] = 0.0f;
  for (int i = 0; i < count; ++i) code[i] = codes[i] & (kMaxEntries - 1);
  for (int i = 0; i < count; ++i) score[i] = scores[i];
}

LUTC_INLINE void store(const float* from, int count, bool add, int64_t stride, float* to) {
  if (add)
    for (int i = 0; i < count; ++i) to[i * stride] += from[i];
  else if (stride == 1)
    for (int i = 0; i < count; ++i) to[i] = from[i];
  else
    for (int i = 0; i < count; ++i) to[i * stride] = from[i];
}

LUTC_CLONES void decode(const Codebooks& k, const float* atoms, const uint8_t* codes, const float* scores,
                        const View<float>& y, bool shared) {
  for (int64_t b = 0; b < k.batch; ++b)
    for (int64_t c = 0; c < k.books; ++c)
      for (int64_t p = 0; p < k.positions; p += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, k.positions - p));
        const int64_t place = (b * k.books + c) * k.positions + p;
        alignas(64) int32_t code[kBlock];
        float gain[kBlock], of[kBlock];
        fetch(codes + place, scores + place, count, code, gain);
        for (int i = 0; i < kBlock; ++i)
          gain[i] = std::nearbyintf(std::min(std::max(gain[i] * k.gain_mul[c], -k.limit), k.limit));
        for (int64_t v = 0; v < k.width; ++v) {
          const int32_t d = k.groups[c * k.width + v];
          if (d < 0) continue;
          pick(atoms + c * k.entries * k.width, k.entries, k.width, v, code, of);
          for (int i = 0; i < kBlock; ++i) of[i] *= gain[i];
          store(of, count, shared, y.position, y.at(b, d, p));
        }
      }
}

// Sums over positions, entry by entry; rows of a block go to one of two halves in turn, so that neighbours with the
// same code need not wait for each other.
struct Sums {
  alignas(64) float half[2][kMaxEntries][2 * kMaxWidth];  // of directions, then of atoms
  float gain_mul[kBlock];
};

template <int kWidth>
LUTC_INLINE void add_rows(const float (&rows)[kBlock][2 * kMaxWidth], const int32_t* code, int count, Sums* sums) {
  for (int i = 0; i < count; ++i) {
    float* to = sums->half[i & 1][code[i]];
    for (int j = 0; j < kWidth; ++j) to[j] += rows[i][j];
    for (int j = 0; j < kWidth; ++j) to[kMaxWidth + j] += rows[i][kMaxWidth + j];
  }
}

struct Gradients {
  float *directions, *atoms, *gain_mul;  // [C, K, V] twice, [C]
};

LUTC_CLONES void backward(const Codebooks& k, const View<const float>& x, const float* atoms, const uint8_t* codes,
                          const float* scores, const View<const float>& g, const View<float>& d_x, bool shared,
                          const Gradients& d) {
  for (int64_t c = 0; c < k.books; ++c) {
    const int64_t table = c * k.entries * k.width;
    Sums sums = {};
    for (int64_t b = 0; b < k.batch; ++b)
      for (int64_t p = 0; p < k.positions; p += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, k.positions - p));
        const int64_t place = (b * k.books + c) * k.positions + p;
        alignas(64) int32_t code[kBlock];
        float score[kBlock], gain[kBlock], d_gain[kBlock] = {}, d_score[kBlock], of[kBlock];
        fetch(codes + place, scores + place, count, code, score);
        Block q, inside, grad;
        load(k, x, b, c, p, count, q, &inside);
        for (int64_t v = 0; v < k.width; ++v) {
          const int32_t feature = k.groups[c * k.width + v];
          float* to = grad[v];
          for (int i = 0; i < kBlock; ++i) to[i] = 0;
          if (feature < 0) continue;
          const float* from = g.at(b, feature, p);
          if (g.position == 1)
            for (int i = 0; i < count; ++i) to[i] = from[i];
          else
            for (int i = 0; i < count; ++i) to[i] = from[i * g.position];
          pick(atoms + table, k.entries, k.width, v, code, of);
          for (int i = 0; i < kBlock; ++i) d_gain[i] += to[i] * of[i];
        }
        for (int i = 0; i < kBlock; ++i) {
          const float raw = score[i] * k.gain_mul[c];
          d_gain[i] = std::fabs(raw) <= k.limit ? d_gain[i] : 0.0f;
          gain[i] = std::nearbyintf(std::min(std::max(raw, -k.limit), k.limit));
          d_score[i] = d_gain[i] * k.gain_mul[c];
          sums.gain_mul[i] += d_gain[i] * score[i];
        }
        alignas(64) float rows[kBlock][2 * kMaxWidth];
        for (int64_t v = 0; v < k.width; ++v) {
          const int32_t feature = k.groups[c * k.width + v];
          for (int i = 0; i < kBlock; ++i) rows[i][v] = q[v][i] * d_score[i];
          for (int i = 0; i < kBlock; ++i) rows[i][kMaxWidth + v] = grad[v][i] * gain[i];
          if (feature < 0) continue;
          pick(k.directions + table, k.entries, k.width, v, code, of);
          const float along = 1.0f - k.through;
          for (int i = 0; i < kBlock; ++i)
            of[i] = along * of[i] * d_score[i] * inside[v][i] + (inside[v][i] != 0.0f ? k.through * grad[v][i] : 0.0f);
          store(of, count, shared, d_x.position, d_x.at(b, feature, p));
        }
        if (k.width <= 4)
          add_rows<4>(rows, code, count, &sums);
        else if (k.width <= 8)
          add_rows<8>(rows, code, count, &sums);
        else
          add_rows<kMaxWidth>(rows, code, count, &sums);
      }
    for (int64_t e = 0; e < k.entries; ++e)
      for (int64_t v = 0; v < k.width; ++v) {
        const int64_t place = table + e * k.width + v;
        d.directions[place] = sums.half[0][e][v] + sums.half[1][e][v];
        d.atoms[place] = sums.half[0][e][kMaxWidth + v] + sums.half[1][e][kMaxWidth + v];
      }
    d.gain_mul[c] = 0;
    for (const float part : sums.gain_mul) d.gain_mul[c] += part;
  }
}

// A float32 array [batch, features, positions] of any strides.
template <class T>
View<T> view(const py::array& array, const int64_t (&shape)[3]) {
  if (!py::isinstance<py::array_t<float>>(array) || array.ndim() != 3)
    throw py::value_error("float32 of rank 3, please");
  for (int i = 0; i < 3; ++i)
    if (array.shape(i) != shape[i]) throw py::value_error("the shapes do not match");
  constexpr py::ssize_t size = sizeof(float);
  if constexpr (std::is_const_v<T>)
    return {static_cast<T*>(array.data()), array.strides(0) / size, array.strides(1) / size, array.strides(2) / size};
  else
    return {static_cast<T*>(const_cast<py::array&>(array).mutable_data()), array.strides(0) / size,
            array.strides(1) / size, array.strides(2) / size};
}

// Constants of one layer, kept alive from the forward to the backward pass by their owner.
class GainCodes {
 public:
  GainCodes(Array<int32_t> groups, Array<float> offset, Array<float> inv_scale, Array<float> directions,
            Array<float> gain_mul, float limit, float through)
      : groups_(std::move(groups)),
        offset_(std::move(offset)),
        inv_scale_(std::move(inv_scale)),
        directions_(std::move(directions)),
        gain_mul_(std::move(gain_mul)),
        limit_(limit),
        through_(through) {
    if (groups_.ndim() != 2 || directions_.ndim() != 3) throw py::value_error("groups [C, V], directions [C, K, V]");
    const int64_t books = groups_.shape(0), width = groups_.shape(1), features = offset_.size();
    if (width < 1 || width > kMaxWidth || directions_.shape(1) < 1 || directions_.shape(1) > kMaxEntries)
      throw py::value_error("at most 16 features a sub-vector and 16 entries a codebook");
    if (directions_.shape(0) != books || directions_.shape(2) != width || gain_mul_.size() != books ||
        inv_scale_.size() != features)
      throw py::value_error("the shapes do not match");
    std::vector<bool> read(static_cast<size_t>(features));
    int64_t distinct = 0;
    for (int64_t i = 0; i < groups_.size(); ++i) {
      const int32_t d = groups_.data()[i];
      if (d >= features) throw py::value_error("groups name a feature that is not there");
      if (d < 0) continue;
      shared_ = shared_ || read[static_cast<size_t>(d)];
      distinct += !read[static_cast<size_t>(d)];
      read[static_cast<size_t>(d)] = true;
    }
    shared_ = shared_ || distinct < features;  // what is not written must be zero
  }

  void encode(const py::array& x, Array<uint8_t> codes, Array<float> scores) const {
    const Codebooks k = codebooks(x);
    check_codes(k, codes, scores);
    const auto from = view<const float>(x, {k.batch, k.features, k.positions});
    uint8_t* to = codes.mutable_data();
    float* s = scores.mutable_data();
    py::gil_scoped_release release;
    ::encode(k, from, to, s);
  }

  void decode(const Array<float>& atoms, const Array<uint8_t>& codes, const Array<float>& scores,
              const py::array& y) const {
    const Codebooks k = codebooks(y);
    check_codes(k, codes, scores);
    check_atoms(atoms);
    const auto to = view<float>(y, {k.batch, k.features, k.positions});
    const float* a = atoms.data();
    py::gil_scoped_release release;
    ::decode(k, a, codes.data(), scores.data(), to, shared_);
  }

  void backward(const py::array& x, const Array<float>& atoms, const Array<uint8_t>& codes, const Array<float>& scores,
                const py::array& g, const py::array& d_x, Array<float> d_directions, Array<float> d_atoms,
                Array<float> d_gain_mul) const {
    const Codebooks k = codebooks(x);
    check_codes(k, codes, scores);
    check_atoms(atoms);
    check_atoms(d_directions);
    check_atoms(d_atoms);
    if (d_gain_mul.size() != k.books) throw py::value_error("the shapes do not match");
    const int64_t shape[] = {k.batch, k.features, k.positions};
    const auto from = view<const float>(x, shape), grad = view<const float>(g, shape);
    const auto to = view<float>(d_x, shape);
    const Gradients d = {d_directions.mutable_data(), d_atoms.mutable_data(), d_gain_mul.mutable_data()};
    py::gil_scoped_release release;
    ::backward(k, from, atoms.data(), codes.data(), scores.data(), grad, to, shared_, d);
  }

  bool shared() const { return shared_; }

 private:
  Codebooks codebooks(const py::array& x) const {
    if (x.ndim() != 3 || x.shape(1) != offset_.size()) throw py::value_error("inputs are [batch, features, positions]");
    return {groups_.shape(0), directions_.shape(1), groups_.shape(1),  x.shape(0),         x.shape(1),       x.shape(2),
            groups_.data(),   offset_.data(),       inv_scale_.data(), directions_.data(), gain_mul_.data(), limit_,
            through_};
  }

  static void check_codes(const Codebooks& k, const Array<uint8_t>& codes, const Array<float>& scores) {
    for (const py::array* array : {static_cast<const py::array*>(&codes), static_cast<const py::array*>(&scores)})
      if (array->ndim() != 3 || array->shape(0) != k.batch || array->shape(1) != k.books ||
          array->shape(2) != k.positions)
        throw py::value_error("codes and scores are [batch, codebooks, positions]");
  }

  void check_atoms(const Array<float>& atoms) const {
    if (atoms.size() != directions_.size()) throw py::value_error("atoms are [C, K, V]");
  }

  Array<int32_t> groups_;
  Array<float> offset_, inv_scale_, directions_, gain_mul_;
  float limit_, through_;
  bool shared_ = false;
};

}  // namespace

void bind_gain_codes(py::module_& m) {
  py::class_<GainCodes>(m, "GainCodes",
                        "The gain form's encode with gradients, in float32. Tensors are float32 [batch, features,\n"
                        "positions] of any strides, codes uint8 and scores float32 [batch, codebooks, positions].")
      .def(py::init<Array<int32_t>, Array<float>, Array<float>, Array<float>, Array<float>, float, float>(),
           py::arg("groups"), py::arg("offset"), py::arg("inv_scale"), py::arg("directions"), py::arg("gain_mul"),
           py::arg("limit"), py::arg("through") = 0.0f)
      .def_property_readonly("shared", &GainCodes::shared, "Whether outputs must be zero before: they are added to.")
      .def("encode", &GainCodes::encode, py::arg("x"), py::arg("codes").noconvert(), py::arg("scores").noconvert())
      .def("decode", &GainCodes::decode, py::arg("atoms"), py::arg("codes").noconvert(), py::arg("scores").noconvert(),
           py::arg("y"))
      .def("backward", &GainCodes::backward, py::arg("x"), py::arg("atoms"), py::arg("codes").noconvert(),
           py::arg("scores").noconvert(), py::arg("g"), py::arg("d_x"), py::arg("d_directions").noconvert(),
           py::arg("d_atoms").noconvert(), py::arg("d_gain_mul").noconvert());
}
