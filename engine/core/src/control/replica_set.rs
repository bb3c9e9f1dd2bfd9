//! Which replicas start, stop and drain.
