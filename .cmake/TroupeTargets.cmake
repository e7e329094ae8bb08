# How a layer, a program and a test are declared.

# troupe_layer(name HEADERS h... SOURCES c... LINK public-targets... PRIVATE third-party...)
# A static library with alias troupe::name; headers are included as "name/x.h" from the root.
function(troupe_layer name)
  cmake_parse_arguments(L "" "" "HEADERS;SOURCES;LINK;PRIVATE" ${ARGN})
  add_library(troupe_${name} STATIC ${L_SOURCES})
  add_library(troupe::${name} ALIAS troupe_${name})
  set_target_properties(troupe_${name} PROPERTIES EXPORT_NAME ${name})
  target_sources(troupe_${name} PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}"
                 FILES ${L_HEADERS})
  target_link_libraries(troupe_${name} PUBLIC ${L_LINK}
                        PRIVATE $<BUILD_INTERFACE:troupe_options> ${L_PRIVATE})
  install(TARGETS troupe_${name} EXPORT troupeTargets FILE_SET HEADERS DESTINATION include/troupe)
  set_property(GLOBAL APPEND PROPERTY TROUPE_LAYERS troupe_${name})
endfunction()

# troupe_program(name SOURCES c... LINK targets...)
function(troupe_program name)
  cmake_parse_arguments(P "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${P_SOURCES})
  target_link_libraries(${name} PRIVATE troupe_options ${P_LINK})
endfunction()

# troupe_test(kind.layer.subject SOURCES c... LINK targets... [RANKS n] [LABELS l...] [ARGS a...]
#             [TIMEOUT seconds] [ENVIRONMENT VAR=value...])
# Builds one test program and registers it. RANKS n starts it under mpiexec with n ranks.
# The label of the kind (unit, dist, ...) is added by itself. Exit status 77 means skipped.
function(troupe_test name)
  cmake_parse_arguments(T "" "RANKS;TIMEOUT" "SOURCES;LINK;LABELS;ARGS;ENVIRONMENT" ${ARGN})
  string(REGEX MATCH "^[a-z0-9_]+" kind "${name}")
  if(T_SOURCES)
    add_executable(${name} ${T_SOURCES})
    target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name} PRIVATE troupe_options ${T_LINK})
    if(kind STREQUAL "unit") # one target builds them all, for the sanitizer runs
      if(NOT TARGET unit_tests)
        add_custom_target(unit_tests)
      endif()
      add_dependencies(unit_tests ${name})
    endif()
  endif()
  troupe_add_test(${name} COMMAND $<TARGET_FILE:${name}> ${T_ARGS} RANKS ${T_RANKS}
                  TIMEOUT ${T_TIMEOUT} LABELS ${kind} ${T_LABELS} ENVIRONMENT ${T_ENVIRONMENT})
endfunction()

# troupe_add_test(name COMMAND program args... [RANKS n] [TIMEOUT s] [LABELS l...] [ENVIRONMENT e...])
# Registers a test of a program that exists already.
function(troupe_add_test name)
  cmake_parse_arguments(T "" "RANKS;TIMEOUT" "COMMAND;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 60)
  endif()
  set(environment OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
      OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
      OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp ${T_ENVIRONMENT})
  if(TROUPE_SANITIZE) # hwloc's unloaded plugins look like leaks: use none
    list(APPEND environment HWLOC_PLUGINS_PATH=/)
  endif()
  if(T_RANKS)
    if(NOT TROUPE_HAVE_MPI)
      return()
    endif()
    if(TROUPE_SANITIZE) # Open MPI's unloaded modules look like leaks
      list(APPEND environment ASAN_OPTIONS=detect_leaks=0)
    endif()
    add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${T_RANKS}
             ${MPIEXEC_PREFLAGS} ${T_COMMAND} ${MPIEXEC_POSTFLAGS})
    set_property(TEST ${name} PROPERTY PROCESSORS ${T_RANKS})
  else()
    add_test(NAME ${name} COMMAND ${T_COMMAND})
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77
                       LABELS "${T_LABELS}" ENVIRONMENT "${environment}")
endfunction()

# troupe_gpu_test(name PROGRAM target [ARGS a...] [RANKS n] [FAILS]): a test on a GPU, in builds with
# CUDA; one at a time, skipped where there is none. A test of one process runs once more under
# compute-sanitizer, which must find the bad write of a program that FAILS on purpose. One process has
# no peers that wait for it, so it need not load all of cuBLASLt first, which takes seconds.
function(troupe_gpu_test name)
  cmake_parse_arguments(T "FAILS" "PROGRAM;RANKS" "ARGS" ${ARGN})
  if(NOT TROUPE_HAVE_CUDA)
    return()
  endif()
  set(command $<TARGET_FILE:${T_PROGRAM}> ${T_ARGS})
  set_property(GLOBAL APPEND PROPERTY TROUPE_GPU_PROGRAMS ${T_PROGRAM})
  if(T_RANKS)
    if(TROUPE_HAVE_MPI)
      troupe_add_test(${name} COMMAND ${command} RANKS ${T_RANKS} LABELS gpu TIMEOUT 120)
      set_property(TEST ${name} PROPERTY RESOURCE_LOCK gpu)
    endif()
    return()
  endif()
  troupe_add_test(${name} COMMAND ${command} LABELS gpu TIMEOUT 120
                  ENVIRONMENT CUDA_MODULE_LOADING=LAZY)
  set_property(TEST ${name} PROPERTY RESOURCE_LOCK gpu)
  find_program(TROUPE_MEMCHECK compute-sanitizer HINTS "${CUDAToolkit_BIN_DIR}")
  if(TROUPE_MEMCHECK)
    troupe_add_test(memcheck.${name} COMMAND "${PROJECT_SOURCE_DIR}/tests/memcheck.sh" ${command}
                    LABELS gpu TIMEOUT 120 ENVIRONMENT CUDA_MODULE_LOADING=LAZY)
    set_property(TEST memcheck.${name} PROPERTY RESOURCE_LOCK gpu)
    if(T_FAILS)
      set_property(TEST memcheck.${name} PROPERTY PASS_REGULAR_EXPRESSION "Invalid __global__ write")
    endif()
  endif()
endfunction()

# How another project finds the libraries: find_package(troupe), then link troupe::runtime, ...
function(troupe_install_package)
  include(CMakePackageConfigHelpers)
  set(destination lib/cmake/troupe)
  configure_package_config_file("${PROJECT_SOURCE_DIR}/.cmake/troupeConfig.cmake.in"
                                "${PROJECT_BINARY_DIR}/troupeConfig.cmake"
                                INSTALL_DESTINATION ${destination})
  write_basic_package_version_file("${PROJECT_BINARY_DIR}/troupeConfigVersion.cmake"
                                   COMPATIBILITY SameMinorVersion)
  install(FILES "${PROJECT_BINARY_DIR}/troupeConfig.cmake"
                "${PROJECT_BINARY_DIR}/troupeConfigVersion.cmake"
                "${PROJECT_SOURCE_DIR}/.cmake/TroupeDependencies.cmake"
          DESTINATION ${destination})
  install(EXPORT troupeTargets NAMESPACE troupe:: DESTINATION ${destination})
endfunction()

function(troupe_summary)
  set(cuda "OFF")
  if(TROUPE_HAVE_CUDA)
    set(cuda "ON ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
  endif()
  message(STATUS "Troupe ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, CUDA ${cuda}, "
                 "NCCL ${TROUPE_HAVE_NCCL} ${NCCL_VERSION}, MPI ${TROUPE_HAVE_MPI} ${MPI_C_VERSION}, libfabric ${TROUPE_HAVE_OFI} ${OFI_VERSION}, hwloc "
                 "${HWLOC_VERSION}, sanitizers '${TROUPE_SANITIZE}'")
endfunction()
