/* SPDX-License-Identifier: Apache-2.0
 *
 * The version of this library, from project(VERSION) in the root CMakeLists.txt. 0.x promises no
 * compatibility; wire and file formats have versions of their own.
 *
 * Ownership: a constant. Threads: any. Failure: none.
 */
#ifndef TROUPE_RUNTIME_VERSION_H
#define TROUPE_RUNTIME_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
const char *troupe_version(void);

#ifdef __cplusplus
}
#endif
#endif
