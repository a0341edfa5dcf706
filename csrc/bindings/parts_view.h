#pragma once
#include <cstdint>
#include <vector>

#include "bindings/core.h"
#include "objects/owner.h"

namespace pshpc::bindings {

// The parts of an object to be stored, held until they are copied.
class PartsView {
 public:
  PartsView(const py::list& segments, std::uint64_t length) {
    views_.reserve(segments.size());
    parts_.reserve(segments.size());
    for (const py::handle& item : segments) {
      const auto segment = py::cast<py::tuple>(item);
      const auto offset = py::cast<std::uint64_t>(segment[0]);
      views_.emplace_back(segment[1], BufferView::Access::read);
      const ConstSpan bytes = views_.back().span();
      if (offset > length || bytes.size > length - offset)
        raise({Code::invalid, "a segment lies outside of the object"});
      parts_.push_back({offset, bytes});
      size_ += bytes.size;
    }
  }
  const std::vector<objects::Part>& parts() const { return parts_; }
  std::size_t size() const { return size_; }

 private:
  std::vector<BufferView> views_;
  std::vector<objects::Part> parts_;
  std::size_t size_ = 0;
};

}  // namespace pshpc::bindings
