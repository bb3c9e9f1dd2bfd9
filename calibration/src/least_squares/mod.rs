//! Non-negative least squares, and the few operations on small matrices that it takes.
