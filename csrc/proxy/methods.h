#pragma once

#include <Python.h>

namespace pshpc::proxy {

/// Methods of the type, ended by an empty entry: special methods that have no slot of their own,
/// and the proxy's protocol (attributes, pickling, subclassing, generics).
extern PyMethodDef kMethods[];

}  // namespace pshpc::proxy
