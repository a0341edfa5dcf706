#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// The target, calling the factory if there is none yet; a subclass' `__proxy_wrapped__` is not
/// asked. Threads that need the same proxy wait, without the GIL, for the one that is inside the
/// factory, and share its outcome: the target, or a ProxyResolveError of their own with its cause.
///
/// Nothing is returned, with an exception set: ProxyResolveError if the factory failed, if it uses
/// its own proxy, or if waiting for another thread would never end.
Ref resolve(ProxyObject* proxy);

/// Prepares for fork(); 0, or -1 with an exception set.
int prepare_resolve();

}  // namespace pshpc::proxy
