//! The fast operations against their slow clear twins, and against themselves.

mod equality;
mod fixture;
mod twin;
