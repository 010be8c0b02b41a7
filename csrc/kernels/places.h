/* places.h -- elements of an index, for indexing.c and scatter.c. Private to csrc/kernels/. */
#ifndef PORT_PLACES_H
#define PORT_PLACES_H

#include "vecmath.h"

/* An element of an index of I64 (wide) or I32. */
PORT_INLINE int64_t
port_place_at(bool wide, const char *at)
{
    int64_t place;
    int32_t narrow;
    if (wide) {
        memcpy(&place, at, sizeof place);
        return place;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

/* Whether any element of an index of I64 or I32 is below `least` or not below `size`; size - least >= 0. */
bool port_places_outside(const port_view *index, int64_t least, int64_t size);

#endif /* PORT_PLACES_H */
