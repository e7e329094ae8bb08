/* SPDX-License-Identifier: Apache-2.0
 *
 * The module classes built in; module.c lists them.
 *
 * Ownership: constant. Threads: any. Failure: none.
 */
#ifndef TROUPE_MODULES_NN_CLASSES_INTERNAL_H
#define TROUPE_MODULES_NN_CLASSES_INTERNAL_H

#include "modules/nn/module.h"

extern const struct troupe_module_class troupe_vision_class;
extern const struct troupe_module_class troupe_projector_class;
extern const struct troupe_module_class troupe_llm_class;

#endif
