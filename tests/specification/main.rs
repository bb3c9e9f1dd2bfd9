//! The rows of the specification that are about requests, time and money, as runs show
//! them; and the README's table, which names a test for each row.
//!
//! Rows about accounts, models and states are held by the control plane's own
//! tests, in `engine/core/tests/specification`.

mod rows;
mod runs;
mod table;
