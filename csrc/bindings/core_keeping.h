#pragma once
// Leaving objects to a keeper, and taking them over, as Python sees it.

#include <memory>

#include "bindings/core.h"
#include "objects/handover.h"

namespace pshpc::bindings {

// Takes over the descriptors that it names.
objects::Estate estate_of(const py::dict& left);
std::shared_ptr<objects::Handover> handover_over(int connection);

}  // namespace pshpc::bindings
