/* Owns the checks of a decoder's tensors against its config. Private to models/. */
#ifndef KNIT_CONFIG_TENSORS_H
#define KNIT_CONFIG_TENSORS_H

#include "config.h"

/* The keys knit.kv.policy, knit.kv.slots and knit.kv.writes; after the visits were read. */
knit_status knit__decoder_read_kv(knit__decoder_config *c, const knit_metadata *m, knit_diag *diag);
/* Presence and shapes of everything that the visits need; sets vocab and tied. */
knit_status knit__decoder_check_weights(knit__decoder_config *c, const knit_weights *weights, knit_diag *diag);
/* Shapes and numbers of the norms of visits and loops; sets loop_norms. */
knit_status knit__decoder_check_own_norms(knit__decoder_config *c, const knit_weights *weights, knit_diag *diag);
/* Pairs, shapes and visit numbers of the LoRA matrices, if the config has a rank; none at all if it has not. */
knit_status knit__decoder_check_adapters(const knit__decoder_config *c, const knit_weights *adapters, knit_diag *diag);
/* The naming style of an adapter file. */
knit__name_style knit__adapter_names_of(const knit_weights *adapters);

#endif
