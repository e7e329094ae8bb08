# Language level, warnings, sanitizers: carried by the private target `troupe_options`.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # POSIX and GNU interfaces: pthread affinity, memmem, ...
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

option(TROUPE_TESTS "build the tests" ON)
option(TROUPE_WERROR "treat warnings as errors (on in the presets, never for users)" OFF)
option(TROUPE_NATIVE "compile for the processor of this machine" ON)
set(TROUPE_SANITIZE "" CACHE STRING "sanitizers, e.g. address,undefined or thread")
option(TROUPE_KERNELS_ONLY "build only runtime and modules/kernels, with their tests" OFF)
option(TROUPE_SANITIZE_TESTS "tests that build and run the unit tests with sanitizers" OFF)
set(TROUPE_MPI AUTO CACHE STRING "MPI job start and host collectives: AUTO, ON or OFF")
set(TROUPE_CUDA AUTO CACHE STRING "NVIDIA GPUs: AUTO, ON or OFF")
set(TROUPE_NCCL AUTO CACHE STRING "collectives between GPUs, needs CUDA: AUTO, ON or OFF")
set(TROUPE_OFI AUTO CACHE STRING "libfabric transport: AUTO, ON or OFF")

if(TROUPE_CUDA STREQUAL "AUTO") # a toolkit without its compiler is no use here
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(TROUPE_CUDA OFF)
  endif()
endif()

add_library(troupe_options INTERFACE)
target_compile_definitions(troupe_options INTERFACE _GNU_SOURCE)
target_compile_options(troupe_options INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra>
  $<$<COMPILE_LANGUAGE:C>:-Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
if(TROUPE_WERROR)
  target_compile_options(troupe_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Werror>
                         $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(TROUPE_NATIVE)
  target_compile_options(troupe_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-march=native>)
endif()
if(TROUPE_SANITIZE)
  target_compile_options(troupe_options INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer -g1>)
  target_link_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZE})
endif()
