"""Maps of signatures in the plane, one file per method, and what such a map can be trusted with.

`places`: new points on a finished map. `quality`: how far its neighbourhoods are right. `floor`: what of a movement is
noise, and displacement in signature space. `density`: contours.
"""
