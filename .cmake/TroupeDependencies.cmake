# Every third-party library, found once. How to install them: .ci/packages.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

# troupe_optional(NAME): resolves the tri-state option TROUPE_<NAME> given <NAME>_FOUND.
function(troupe_optional name found)
  if(TROUPE_${name} STREQUAL "ON" AND NOT found)
    message(FATAL_ERROR "TROUPE_${name} is ON, but it was not found; see .ci/packages")
  endif()
  if(found AND NOT TROUPE_${name} STREQUAL "OFF")
    set(TROUPE_HAVE_${name} ON PARENT_SCOPE)
  else()
    set(TROUPE_HAVE_${name} OFF PARENT_SCOPE)
  endif()
endfunction()

# runtime
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(CK REQUIRED IMPORTED_TARGET ck)

# runtime and modules/kernels: the CUDA runtime and cuBLASLt (the compiler: CMakeLists.txt)
set(CUDA_FOUND OFF)
if(NOT TROUPE_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  if(TARGET CUDA::cudart_static AND TARGET CUDA::cublasLt)
    set(CUDA_FOUND ON)
  endif()
endif()
troupe_optional(CUDA "${CUDA_FOUND}")

if(TROUPE_KERNELS_ONLY)
  return()
endif()

# comm
set(MPI_FOUND OFF)
if(NOT TROUPE_MPI STREQUAL "OFF")
  find_package(MPI QUIET COMPONENTS C)
endif()
troupe_optional(MPI "${MPI_FOUND}")
set(OFI_FOUND OFF)
if(NOT TROUPE_OFI STREQUAL "OFF")
  pkg_check_modules(OFI QUIET IMPORTED_TARGET libfabric)
endif()
troupe_optional(OFI "${OFI_FOUND}")

# comm: NCCL, of a toolkit, a package, or a Python wheel (NCCL_ROOT; it has no libnccl.so). It
# comes without a description for CMake or pkg-config.
set(NCCL_FOUND OFF)
if(TROUPE_HAVE_CUDA AND NOT TROUPE_NCCL STREQUAL "OFF")
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS "${NCCL_ROOT}" ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include)
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS "${NCCL_ROOT}"
               "${CUDAToolkit_LIBRARY_DIR}" PATH_SUFFIXES lib lib64)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(NCCL_FOUND ON)
    file(STRINGS "${NCCL_INCLUDE_DIR}/nccl.h" NCCL_VERSION
         REGEX "#define NCCL_(MAJOR|MINOR|PATCH) +[0-9]+")
    list(TRANSFORM NCCL_VERSION REPLACE ".* " "")
    list(JOIN NCCL_VERSION "." NCCL_VERSION)
    if(NOT TARGET NCCL::NCCL)
      add_library(NCCL::NCCL UNKNOWN IMPORTED)
      set_target_properties(NCCL::NCCL PROPERTIES IMPORTED_LOCATION "${NCCL_LIBRARY}"
                            INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}")
    endif()
  endif()
endif()
troupe_optional(NCCL "${NCCL_FOUND}")

# modules
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
set(YAML_FOUND OFF) # without it, --set configures a run
if(NOT TROUPE_YAML STREQUAL "OFF")
  pkg_check_modules(YAML QUIET IMPORTED_TARGET yaml-0.1)
endif()
troupe_optional(YAML "${YAML_FOUND}")
set(MEDIA_FOUND OFF) # pictures and shards; without them, data is synthetic
if(NOT TROUPE_MEDIA STREQUAL "OFF")
  pkg_check_modules(PNG QUIET IMPORTED_TARGET libpng)
  pkg_check_modules(JPEG QUIET IMPORTED_TARGET libjpeg)
  pkg_check_modules(RSVG QUIET IMPORTED_TARGET librsvg-2.0)
  pkg_check_modules(ARCHIVE QUIET IMPORTED_TARGET libarchive)
  if(PNG_FOUND AND JPEG_FOUND AND RSVG_FOUND AND ARCHIVE_FOUND)
    set(MEDIA_FOUND ON)
  endif()
endif()
troupe_optional(MEDIA "${MEDIA_FOUND}")
