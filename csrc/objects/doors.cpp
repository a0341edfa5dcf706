#include "objects/doors.h"

#include <algorithm>
#include <mutex>
#include <set>

namespace pshpc::objects {

const char* stable_name(const std::string& door) {
  static std::mutex mutex;
  static std::set<std::string> names;
  std::lock_guard<std::mutex> lock(mutex);
  return names.insert(door).first->c_str();
}

bool DoorChoice::allows(const std::string& door) const {
  return names_.empty() || std::find(names_.begin(), names_.end(), door) != names_.end();
}

std::string DoorChoice::describe() const {
  std::string text;
  for (const std::string& name : names_) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "any" : text;
}

}  // namespace pshpc::objects
