#pragma once
// Warnings that a user must see. PROXYSTORE_HPC_LOG=debug|warn|off; the default is warn.

#include <string>

namespace pshpc {

enum class LogLevel { off, warn, debug };

LogLevel log_level();
void log_warn(const std::string& message);
void log_debug(const std::string& message);

// Says each distinct message once in the life of the process.
void log_warn_once(const std::string& message);

}  // namespace pshpc
