#pragma once
// What a forked child must not keep: descriptors, pins and threads belong to the parent.

#include <cstdint>

namespace pshpc {

// Grows by one in every forked child. An object remembers the value of its birth; a different
// value later means that it was inherited and must leave shared state alone.
std::uint32_t fork_generation();

// Closes `fd` in every forked child until it is forgotten. Without this a parent's death would go
// unseen: the child would hold its end of each socket.
void close_in_child(int fd);
// Closes `fd` here and now, and forgets it. In one step: a fork in between would leave the child
// with an open descriptor, or with somebody else's closed.
void close_guarded(int fd);

}  // namespace pshpc
