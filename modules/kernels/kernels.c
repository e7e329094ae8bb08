/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/kernels.h"
