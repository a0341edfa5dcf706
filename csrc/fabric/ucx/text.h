#pragma once
// UCX describes its objects by printing them; this catches the print.

#include <cstdio>
#include <cstdlib>
#include <string>

namespace pshpc::fabric::ucx {

template <class Print>
std::string printed(Print print) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* stream = ::open_memstream(&text, &size);
  if (stream == nullptr) return {};
  print(stream);
  std::fclose(stream);
  std::string result(text, size);
  std::free(text);
  return result;
}

}  // namespace pshpc::fabric::ucx
