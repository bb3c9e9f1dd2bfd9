//! An endpoint that answers as slowly and as badly as it is told.
