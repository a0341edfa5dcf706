#pragma once
// Which doors a store may use.

#include <string>
#include <utility>
#include <vector>

namespace pshpc::objects {

inline constexpr const char* kSelfDoor = "self";
inline constexpr const char* kShmDoor = "shm";
inline constexpr const char* kSocketDoor = "socket";  // our own connection, piece by piece
inline constexpr const char* kTcpDoor = "tcp";        // of Python's: to what a key says is outside

// The same characters for the same name, for as long as the process lives.
const char* stable_name(const std::string& door);

// "self" always may be used: nothing is opened for it.
class DoorChoice {
 public:
  // Empty: every door, and the socket as a last resort.
  explicit DoorChoice(std::vector<std::string> names = {}) : names_(std::move(names)) {}
  bool allows(const std::string& door) const;
  bool only_tcp() const { return names_.size() == 1 && names_.front() == kTcpDoor; }
  std::string describe() const;

 private:
  std::vector<std::string> names_;
};

}  // namespace pshpc::objects
