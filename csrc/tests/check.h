#pragma once

// A test harness of one page: TEST(name) { ... } registers itself. CHECK and CHECK_EQ note a
// failure and go on; REQUIRE ends the test. They work in any thread, REQUIRE only in the test's
// own.

#include <sstream>
#include <string>
#include <type_traits>

namespace pshpc::test {

using Body = void (*)();

// Thrown by REQUIRE to leave the test; the failure itself is noted before.
struct Abandoned {};

bool add_test(const char* file, const char* name, Body body);
void note_failure(const char* file, int line, const std::string& what);

template <typename T, typename = void>
struct IsPrintable : std::false_type {};
template <typename T>
struct IsPrintable<T, std::void_t<decltype(std::declval<std::ostream&>() << std::declval<T>())>>
    : std::true_type {};

template <typename T>
std::string printed(const T& value) {
  std::ostringstream out;
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<long long>(value);
  } else if constexpr (IsPrintable<const T&>::value) {
    out << std::boolalpha << value;
  } else {
    out << "<" << sizeof(T) << " bytes>";
  }
  return out.str();
}

// Literals are signed and sizes are not: comparing them is what a test means to do.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
template <typename A, typename B>
bool check_equal(const char* file, int line, const char* text, const A& left, const B& right) {
  if (left == right) return true;
  note_failure(file, line, std::string(text) + ": " + printed(left) + " != " + printed(right));
  return false;
}
#pragma GCC diagnostic pop

}  // namespace pshpc::test

#define TEST(name)                                            \
  static void test_##name();                                  \
  static const bool registered_##name [[maybe_unused]] =      \
      ::pshpc::test::add_test(__FILE__, #name, &test_##name); \
  static void test_##name()

#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!(condition)) ::pshpc::test::note_failure(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (false)

#define CHECK_EQ(left, right) \
  ::pshpc::test::check_equal(__FILE__, __LINE__, "CHECK_EQ(" #left ", " #right ")", (left), (right))

#define REQUIRE(condition)                                                        \
  do {                                                                            \
    if (!(condition)) {                                                           \
      ::pshpc::test::note_failure(__FILE__, __LINE__, "REQUIRE(" #condition ")"); \
      throw ::pshpc::test::Abandoned{};                                           \
    }                                                                             \
  } while (false)
